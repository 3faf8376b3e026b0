# Buses, rules and what stands between them and the queues. The settings are those that `crossbus provision` makes.

locals {
  topics = { for name, one in var.topology.topics : name => merge(one.eventbridge, { external = one.external }) if one.eventbridge != null }
  subscriptions = { for key, one in var.topology.subscriptions : key => merge(one, one.eventbridge, {
    retention = try(coalesce(one.eventbridge.retention_seconds, one.retention_seconds), null)
    backstop  = coalesce(one.eventbridge.backstop, one.backstop, local.limits.default_backstop)
  }) if one.eventbridge != null }

  # Several topics may share one bus. A bus by its ARN is there already.
  buses    = toset([for one in local.topics : one.bus if !one.external && !startswith(one.bus, "arn:")])
  bus_arns = { for name, one in local.topics : name => startswith(one.bus, "arn:") ? one.bus : try(aws_cloudwatch_event_bus.this[one.bus].arn, data.aws_cloudwatch_event_bus.external[one.bus].arn) }
  archives = { for bus in local.buses : bus => try(coalesce(var.archive_days, one([for one in distinct([for topic in local.topics : topic.archive_days if topic.bus == bus]) : one])), null) }
}

resource "aws_cloudwatch_event_bus" "this" {
  for_each           = local.buses
  name               = each.key
  kms_key_identifier = var.bus_kms_key
  tags               = var.tags
}

data "aws_cloudwatch_event_bus" "external" {
  for_each = toset([for one in local.topics : one.bus if one.external && !startswith(one.bus, "arn:")])
  name     = each.key
}

resource "aws_cloudwatch_event_bus_policy" "this" {
  for_each       = toset([for name, accounts in var.publisher_accounts : local.topics[name].bus if length(accounts) > 0])
  event_bus_name = aws_cloudwatch_event_bus.this[each.key].name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "crossbus-publishers"
      Effect    = "Allow"
      Principal = { AWS = distinct(flatten([for name, accounts in var.publisher_accounts : accounts if local.topics[name].bus == each.key])) }
      Action    = "events:PutEvents"
      Resource  = aws_cloudwatch_event_bus.this[each.key].arn
    }]
  })
}

resource "aws_cloudwatch_event_archive" "this" {
  for_each         = { for bus, days in local.archives : bus => days if days != null }
  name             = length(each.key) <= 48 ? each.key : "${replace(substr(each.key, 0, 39), "/-+$/", "")}-${substr(sha256(each.key), 0, 8)}"
  description      = "for replays by crossbus"
  event_source_arn = aws_cloudwatch_event_bus.this[each.key].arn
  retention_days   = each.value
}

resource "aws_cloudwatch_event_rule" "this" {
  for_each       = local.subscriptions
  name           = each.value.rule
  event_bus_name = try(aws_cloudwatch_event_bus.this[local.topics[each.value.topic].bus].name, local.topics[each.value.topic].bus)
  description    = "crossbus: subscription ${each.key}"
  event_pattern  = each.value.pattern
  state          = "ENABLED"
  tags           = var.tags
}

# The whole envelope is delivered: by it crossbus tells replays from new events.
resource "aws_cloudwatch_event_target" "this" {
  for_each       = local.subscriptions
  rule           = each.value.rule
  event_bus_name = local.rules[each.key].bus
  target_id      = "crossbus"
  arn            = local.queues[each.key].arn
  dead_letter_config {
    arn = local.dead_queues[each.key].arn
  }
  # A rule that may not send yet would lose events in silence.
  depends_on = [aws_sqs_queue_policy.this, aws_sqs_queue_policy.dead]
}

check "rules" {
  assert {
    condition     = alltrue([for count in [for bus in distinct([for one in local.topics : one.bus]) : length([for one in local.subscriptions : one if local.topics[one.topic].bus == bus])] : count <= var.rules_per_bus])
    error_message = "more than ${var.rules_per_bus} rules are on one bus, which AWS allows only if it has raised your quota: raise the quota of rules per event bus in Service Quotas, or divide the topics over several buses; then set rules_per_bus."
  }
}
