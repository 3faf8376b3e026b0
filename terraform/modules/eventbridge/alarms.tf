resource "aws_cloudwatch_metric_alarm" "dead_letters" {
  for_each            = var.alarms == null ? {} : local.subscriptions
  alarm_name          = "${each.value.dead_letter_queue}: dead letters"
  alarm_description   = "Subscription ${each.key} has dead letters. Look with: crossbus dlq summary ${each.key}"
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = each.value.dead_letter_queue }
  statistic           = "Maximum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.alarms.dead_letters
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarms.actions
  ok_actions          = var.alarms.actions
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "oldest" {
  for_each            = var.alarms == null ? {} : local.subscriptions
  alarm_name          = "${each.value.queue}: events wait"
  alarm_description   = "The oldest event of subscription ${each.key} has waited for more than ${var.alarms.oldest_seconds} s. Look with: crossbus stats"
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateAgeOfOldestMessage"
  dimensions          = { QueueName = each.value.queue }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 5
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.alarms.oldest_seconds
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarms.actions
  ok_actions          = var.alarms.actions
  tags                = var.tags
}
