locals {
  profile  = coalesce(var.profile_name, local.adapter)
  is_there = var.profile_is_there == null ? local.profile == var.topology.profile : var.profile_is_there
  host     = data.azapi_resource.namespace.output.properties.topicsConfiguration.hostname
  scope    = split("/", local.namespace_id) # "", subscriptions, ID, resourceGroups, NAME, providers, ...

  settings = merge(
    local.is_there ? { target = local.host } : { url = "eventgrid://${local.host}" },
    local.is_there || var.topology.names == "{name}" ? {} : { names = var.topology.names },
    { subscription_id = local.scope[2], resource_group = local.scope[4] },
    var.backstop == null ? {} : { backstop_storage = var.backstop.storage_account_id, backstop_container = var.backstop.container },
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

output "namespace" {
  description = "Resource id and host name of the namespace."
  value       = { id = local.namespace_id, host = local.host }
}

output "topics" {
  description = "By topic, the resource id of the namespace topic."
  value       = local.topic_ids
}

output "subscriptions" {
  description = "By subscription, the resource ids of its event subscription, and of topic and subscription of its dead letter."
  value = { for key, one in local.subscriptions : key => {
    id                       = azapi_resource.subscription[key].id
    dead_letter_topic        = local.dead_topics[key]
    dead_letter_subscription = azapi_resource.dead_subscription[key].id
  } }
}

output "publisher_roles" {
  description = "By topic, the role of a program that publishes to it, and on which resource."
  value       = { for name, grants in local.publish : name => [for one in grants : { scope = one.scope, role = one.role }] }
}

output "consumer_roles" {
  description = "By subscription, the roles of a program that consumes it, and on which resources."
  value       = { for key, grants in local.consume : key => [for one in grants : { scope = one.scope, role = one.role }] }
}

output "operator_roles" {
  description = "By subscription, the roles of who lists, redrives and purges its dead letters."
  value       = { for key, grants in local.operate : key => [for one in grants : { scope = one.scope, role = one.role }] }
}

output "inspector_roles" {
  description = "The role of a program that looks whether everything is as declared: when it starts, and with crossbus doctor."
  value       = [for one in local.inspect : { scope = one.scope, role = one.role }]
}

output "client_ids" {
  description = "By name in `access`, the client id of the managed identity that an identity of another cloud takes on (AZURE_CLIENT_ID)."
  value       = { for name, one in azurerm_user_assigned_identity.this : name => one.client_id }
}
