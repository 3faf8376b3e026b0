resource "azurerm_monitor_metric_alert" "dead_letters" {
  for_each            = var.alarms == null ? {} : local.subscriptions
  name                = "${each.value.dead_letter_topic}: dead letters"
  description         = "Subscription ${each.key} has new dead letters. Look with: crossbus dlq summary ${each.key}"
  resource_group_name = var.resource_group_name
  scopes              = [local.namespace_id]
  frequency           = "PT1M"
  window_size         = var.alarms.window
  severity            = 2
  tags                = var.tags
  criteria {
    metric_namespace = "Microsoft.EventGrid/namespaces"
    metric_name      = "SuccessfulPublishedEvents"
    aggregation      = "Total"
    operator         = "GreaterThan"
    threshold        = var.alarms.dead_letters
    dimension {
      name     = "Topic"
      operator = "Include"
      values   = [each.value.dead_letter_topic]
    }
  }
  dynamic "action" {
    for_each = var.alarms.action_group_ids
    content {
      action_group_id = action.value
    }
  }
}

# What was received too often, or grew too old, with nobody to acknowledge it: gone, unless `backstop` names a container.
resource "azurerm_monitor_metric_alert" "dropped" {
  count               = var.alarms == null ? 0 : 1
  name                = "${var.namespace.name}: dropped events"
  description         = "Event Grid dropped events that were received too often or grew too old. Look whether consumers run: crossbus stats"
  resource_group_name = var.resource_group_name
  scopes              = [local.namespace_id]
  frequency           = "PT1M"
  window_size         = var.alarms.window
  severity            = 1
  tags                = var.tags
  criteria {
    metric_namespace = "Microsoft.EventGrid/namespaces"
    metric_name      = "DroppedEvents"
    aggregation      = "Total"
    operator         = "GreaterThan"
    threshold        = 0
  }
  dynamic "action" {
    for_each = var.alarms.action_group_ids
    content {
      action_group_id = action.value
    }
  }
}
