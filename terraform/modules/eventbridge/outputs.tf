locals {
  profile  = coalesce(var.profile_name, local.adapter)
  is_there = var.profile_is_there == null ? local.profile == var.topology.profile : var.profile_is_there
  region   = try(split(":", concat(values(local.bus_arns), [for one in local.queues : one.arn])[0])[3], null)

  shared  = try(one(distinct([for one in local.topics : one.bus if one.shared && !one.external])), null)
  archive = try(one(distinct([for days in values(local.archives) : tostring(days) if days != null])), null)

  settings = merge(
    local.is_there ? {} : { url = "eventbridge:" },
    local.is_there || var.topology.names == "{name}" ? {} : { names = var.topology.names },
    { for key, value in { region = local.region, bus = local.is_there ? null : local.shared, archive = local.is_there && var.archive_days == null ? null : local.archive } : key => value if value != null },
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
    flatten([for key, id in local.keys : [
      "",
      "[profiles.${local.profile}.subscriptions.\"${key}\"]",
      "options = { kms_key = ${jsonencode(id)} }",
    ] if id != null]),
    [""],
  ))
}

output "profile" {
  description = "The same as a map, for who writes the profile by other means."
  value       = local.settings
}

output "buses" {
  description = "By topic, name and ARN of its bus."
  value       = { for name, one in local.topics : name => { name = one.bus, arn = local.bus_arns[name] } }
}

output "queues" {
  description = "By subscription, ARN and URL of its queue and of its dead letter's, and the ARN of its rule."
  value = { for key, one in local.subscriptions : key => {
    arn      = local.queues[key].arn
    url      = local.queues[key].url
    dead_arn = local.dead_queues[key].arn
    dead_url = local.dead_queues[key].url
    rule_arn = local.rules[key].arn
  } }
}

output "publisher_policies" {
  description = "By topic, the IAM policy (JSON) of a program that publishes to it."
  value       = { for name, statements in local.publish_statements : name => jsonencode({ Version = "2012-10-17", Statement = statements }) }
}

output "consumer_policies" {
  description = "By subscription, the IAM policy (JSON) of a program that consumes it."
  value       = { for key, statements in local.consume_statements : key => jsonencode({ Version = "2012-10-17", Statement = statements }) }
}

output "operator_policies" {
  description = "By subscription, the IAM policy (JSON) of who lists, redrives and purges its dead letters."
  value       = { for key, statements in local.operate_statements : key => jsonencode({ Version = "2012-10-17", Statement = statements }) }
}

output "inspector_policy" {
  description = "The IAM policy (JSON) of a program that looks whether everything is as declared: when it starts, and with crossbus doctor, which asks for `iam:SimulatePrincipalPolicy` and `iam:GetRole` on its own role besides."
  value       = jsonencode({ Version = "2012-10-17", Statement = local.inspect_statements })
}

output "role_arns" {
  description = "By name in `access`, the ARN of its role."
  value       = { for name, one in aws_iam_role.this : name => one.arn }
}
