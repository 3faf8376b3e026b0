resource "google_monitoring_alert_policy" "dead_letters" {
  for_each              = var.alarms == null ? {} : local.subscriptions
  project               = var.project
  display_name          = "${each.value.dead_short}: dead letters"
  combiner              = "OR"
  notification_channels = var.alarms.notification_channels
  user_labels           = var.labels
  conditions {
    display_name = "more than ${var.alarms.dead_letters} dead letters"
    condition_threshold {
      filter          = "resource.type = \"pubsub_subscription\" AND resource.labels.subscription_id = \"${local.dead_readers[each.key].name}\" AND metric.type = \"pubsub.googleapis.com/subscription/num_undelivered_messages\""
      comparison      = "COMPARISON_GT"
      threshold_value = var.alarms.dead_letters
      duration        = "0s"
      aggregations {
        alignment_period   = "300s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }
  documentation {
    mime_type = "text/markdown"
    content   = "Subscription `${each.key}` has dead letters. Look with: `crossbus dlq summary ${each.key}`"
  }
}

resource "google_monitoring_alert_policy" "oldest" {
  for_each              = var.alarms == null ? {} : local.generations
  project               = var.project
  display_name          = "${reverse(split("/", each.key))[0]}: events wait"
  combiner              = "OR"
  notification_channels = var.alarms.notification_channels
  user_labels           = var.labels
  conditions {
    display_name = "the oldest event has waited for more than ${var.alarms.oldest_seconds} s"
    condition_threshold {
      filter          = "resource.type = \"pubsub_subscription\" AND resource.labels.subscription_id = \"${local.made_generations[each.key].name}\" AND metric.type = \"pubsub.googleapis.com/subscription/oldest_unacked_message_age\""
      comparison      = "COMPARISON_GT"
      threshold_value = var.alarms.oldest_seconds
      duration        = "300s"
      aggregations {
        alignment_period   = "60s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }
  documentation {
    mime_type = "text/markdown"
    content   = "Events of subscription `${each.value.key}` wait. Look with: `crossbus stats`"
  }
}
