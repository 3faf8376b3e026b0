locals {
  profile  = coalesce(var.profile_name, local.adapter)
  is_there = var.profile_is_there == null ? local.profile == var.topology.profile : var.profile_is_there

  settings = merge(
    local.is_there ? { target = var.project } : { url = "pubsub:${var.project}" },
    local.is_there || var.topology.names == "{name}" ? {} : { names = var.topology.names },
    var.profile_parameters,
  )
}

output "crossbus_toml" {
  description = "A profile for crossbus.toml, with which programs use what is made here. Write it into a file that crossbus.toml includes."
  value = join("\n", concat(
    [
      "# Made by terraform, from the topology of ${length(local.topics)} topics and ${length(local.subscriptions)} subscriptions.",
      "[profiles.${local.profile}]",
    ],
    [for key, value in local.settings : "${key} = ${jsonencode(value)}"],
    [""],
  ))
}

output "profile" {
  description = "The same as a map, for who writes the profile by other means."
  value       = local.settings
}

output "topics" {
  description = "By topic, the full name of Pub/Sub's topic."
  value       = local.topic_ids
}

output "subscriptions" {
  description = "By subscription, the full names of its generations, and of topic and subscription of its dead letter."
  value = { for key, one in local.subscriptions : key => {
    generations              = [for name, generation in local.generations : local.made_generations[name].id if generation.key == key]
    dead_letter_topic        = local.dead_topics[key].id
    dead_letter_subscription = local.dead_readers[key].id
  } }
}

output "publisher_roles" {
  description = "By topic, the roles of a program that publishes to it, and on which resource."
  value       = local.publish
}

output "consumer_roles" {
  description = "By subscription, the roles of a program that consumes it, and on which resources."
  value       = local.consume
}

output "operator_roles" {
  description = "By subscription, the roles of who lists, redrives and purges its dead letters."
  value       = local.operate
}

output "inspector_roles" {
  description = "The roles of a program that looks whether everything is as declared: when it starts, and with crossbus doctor."
  value       = local.inspect
}

output "identity_providers" {
  description = "By name in `access`, the provider of the workload identity pool, whose name goes into the credential configuration of a program of another cloud."
  value       = { for name, one in google_iam_workload_identity_pool_provider.this : name => one.name }
}
