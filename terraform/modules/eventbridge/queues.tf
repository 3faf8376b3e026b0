# The queue of each subscription, and that of its dead letter.

locals {
  # Terraform reads all of a resource each time that one of it is named: with many subscriptions that takes minutes, and so
  # each is read once, here.
  queues      = { for key, one in aws_sqs_queue.this : key => { arn = one.arn, url = one.url } }
  dead_queues = { for key, one in aws_sqs_queue.dead : key => { arn = one.arn, url = one.url } }
  rules       = { for key, one in aws_cloudwatch_event_rule.this : key => { arn = one.arn, bus = one.event_bus_name } }

  keys = { for key, one in local.subscriptions : key => try(coalesce(one.kms_key, var.kms_key), null) }
}

resource "aws_sqs_queue" "this" {
  for_each                   = local.subscriptions
  name                       = each.value.queue
  visibility_timeout_seconds = ceil(each.value.lease_seconds)
  message_retention_seconds  = each.value.retention == null ? 345600 : each.value.retention # SQS's own default
  max_message_size           = var.max_message_bytes
  sqs_managed_sse_enabled    = local.keys[each.key] == null ? true : null
  kms_master_key_id          = local.keys[each.key]
  redrive_policy = jsonencode({
    deadLetterTargetArn = local.dead_queues[each.key].arn
    maxReceiveCount     = each.value.backstop
  })
  tags = var.tags
}

# SQS counts how long it keeps a message from the first time that it was sent, so that the dead letter must keep longer
# than the queue: as long as SQS can.
resource "aws_sqs_queue" "dead" {
  for_each                  = local.subscriptions
  name                      = each.value.dead_letter_queue
  message_retention_seconds = coalesce(each.value.dead_letter_retention_seconds, 1209600)
  max_message_size          = var.max_message_bytes
  sqs_managed_sse_enabled   = local.keys[each.key] == null ? true : null
  kms_master_key_id         = local.keys[each.key]
  tags                      = var.tags
}

resource "aws_sqs_queue_redrive_allow_policy" "dead" {
  for_each  = var.restrict_dlq_sources ? local.subscriptions : {}
  queue_url = local.dead_queues[each.key].url
  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [local.queues[each.key].arn]
  })
}

# This rule may send into both queues, and no other service or account may; nobody without TLS. What EventBridge cannot
# deliver goes into the dead letter, for which it needs the same statement.
resource "aws_sqs_queue_policy" "this" {
  for_each  = local.subscriptions
  queue_url = local.queues[each.key].url
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "crossbus-${substr(sha256(local.rules[each.key].arn), 0, 16)}"
        Effect    = "Allow"
        Principal = { Service = "events.amazonaws.com" }
        Action    = "sqs:SendMessage"
        Resource  = local.queues[each.key].arn
        Condition = { ArnEquals = { "aws:SourceArn" = local.rules[each.key].arn } }
      },
      {
        Sid       = "crossbus-tls-only"
        Effect    = "Deny"
        Principal = "*"
        Action    = "sqs:*"
        Resource  = local.queues[each.key].arn
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}

resource "aws_sqs_queue_policy" "dead" {
  for_each  = local.subscriptions
  queue_url = local.dead_queues[each.key].url
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "crossbus-${substr(sha256(local.rules[each.key].arn), 0, 16)}"
        Effect    = "Allow"
        Principal = { Service = "events.amazonaws.com" }
        Action    = "sqs:SendMessage"
        Resource  = local.dead_queues[each.key].arn
        Condition = { ArnEquals = { "aws:SourceArn" = local.rules[each.key].arn } }
      },
      {
        Sid       = "crossbus-tls-only"
        Effect    = "Deny"
        Principal = "*"
        Action    = "sqs:*"
        Resource  = local.dead_queues[each.key].arn
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}

check "retention" {
  assert {
    condition     = alltrue([for one in local.subscriptions : try(one.retention, 0) == null ? true : one.retention < coalesce(one.dead_letter_retention_seconds, 1209600)])
    error_message = "a subscription keeps events as long as its dead letter does (14 days, the most that SQS has). SQS counts from the first sending, so that what it moves there would be gone at once: give the subscription a shorter retention."
  }
}
