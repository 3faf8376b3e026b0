# What programs need, and no more. The lists are those of the adapter's page; a test holds the two against each other.

locals {
  permissions = {
    publish = {
      bus = ["events:DescribeEventBus", "events:PutEvents"]
    }
    consume = {
      queue       = ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:ReceiveMessage"]
      dead_letter = ["sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:SendMessage"]
    }
    operate = {
      queue       = ["sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:SendMessage"]
      dead_letter = ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:ReceiveMessage"]
    }
    inspect = {
      buses  = ["events:DescribeArchive", "events:DescribeEventBus", "events:DescribeRule", "events:ListRuleNamesByTarget", "events:ListTargetsByRule"]
      queues = ["sqs:GetQueueAttributes", "sqs:GetQueueUrl"]
    }
    doctor = {
      bus      = ["events:ListRules"]
      own_role = ["iam:GetRole", "iam:SimulatePrincipalPolicy"]
    }
  }

  publish_statements = { for name, arn in local.bus_arns : name => [
    { Effect = "Allow", Action = local.permissions.publish.bus, Resource = arn },
  ] }
  consume_statements = { for key, one in local.subscriptions : key => concat(
    [
      { Effect = "Allow", Action = local.permissions.consume.queue, Resource = local.queues[key].arn },
      { Effect = "Allow", Action = local.permissions.consume.dead_letter, Resource = local.dead_queues[key].arn },
    ],
    [for id in compact([local.keys[key]]) : { Effect = "Allow", Action = ["kms:Decrypt", "kms:GenerateDataKey"], Resource = id } if startswith(id, "arn:")],
  ) }
  operate_statements = { for key, one in local.subscriptions : key => concat(
    [
      { Effect = "Allow", Action = local.permissions.operate.queue, Resource = local.queues[key].arn },
      { Effect = "Allow", Action = local.permissions.operate.dead_letter, Resource = local.dead_queues[key].arn },
    ],
    [for id in compact([local.keys[key]]) : { Effect = "Allow", Action = ["kms:Decrypt", "kms:GenerateDataKey"], Resource = id } if startswith(id, "arn:")],
  ) }
  inspect_statements = concat(
    [for arn in distinct(values(local.bus_arns)) : { Effect = "Allow", Action = local.permissions.doctor.bus, Resource = arn }],
    [for resources in [concat(
      values(local.bus_arns),
      [for one in local.rules : one.arn],
      [for one in aws_cloudwatch_event_archive.this : one.arn],
    )] : { Effect = "Allow", Action = local.permissions.inspect.buses, Resource = resources } if length(resources) > 0],
    [for resources in [concat(
      [for one in local.queues : one.arn],
      [for one in local.dead_queues : one.arn],
    )] : { Effect = "Allow", Action = local.permissions.inspect.queues, Resource = resources } if length(resources) > 0],
  )

  # Google's identities are known to AWS without a provider; all others need one.
  google    = "https://accounts.google.com"
  issuers   = { for one in distinct([for role in var.access : role.oidc.issuer if role.oidc != null]) : one => distinct(flatten([for role in var.access : role.oidc.audiences if try(role.oidc.issuer, "") == one])) if one != local.google }
  federated = { for name, role in var.access : name => role.oidc == null ? "" : trimprefix(role.oidc.issuer, "https://") }
}

resource "aws_iam_openid_connect_provider" "this" {
  for_each       = local.issuers
  url            = each.key
  client_id_list = each.value
  tags           = var.tags
}

resource "aws_iam_role" "this" {
  for_each    = var.access
  name        = each.key
  description = "crossbus: publishes to ${length(each.value.publish)} topics, consumes ${length(each.value.consume)} subscriptions"
  tags        = var.tags
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [for services in [each.value.services] : { Effect = "Allow", Principal = { Service = services }, Action = "sts:AssumeRole" } if length(services) > 0],
      [for principals in [each.value.principals] : merge(
        { Effect = "Allow", Principal = { AWS = principals }, Action = "sts:AssumeRole" },
        each.value.external_id == null ? {} : { Condition = { StringEquals = { "sts:ExternalId" = each.value.external_id } } },
      ) if length(principals) > 0],
      [for oidc in compact([local.federated[each.key]]) : {
        Effect    = "Allow"
        Principal = { Federated = each.value.oidc.issuer == local.google ? oidc : aws_iam_openid_connect_provider.this[each.value.oidc.issuer].arn }
        Action    = "sts:AssumeRoleWithWebIdentity"
        Condition = { StringEquals = {
          "${oidc}:${each.value.oidc.issuer == local.google ? "oaud" : "aud"}" = each.value.oidc.audiences
          "${oidc}:sub"                                                        = each.value.oidc.subjects
        } }
      }],
    )
  })
}

resource "aws_iam_role_policy" "this" {
  for_each = var.access
  name     = "crossbus"
  role     = aws_iam_role.this[each.key].name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      flatten([for name in each.value.publish : local.publish_statements[name]]),
      flatten([for key in each.value.consume : local.consume_statements[key]]),
      flatten([for key in each.value.operate : local.operate_statements[key]]),
      [for one in local.inspect_statements : one if each.value.inspect],
      [for arn in [aws_iam_role.this[each.key].arn] : { Effect = "Allow", Action = local.permissions.doctor.own_role, Resource = arn } if each.value.inspect],
    )
  })
}
