# Namespace, topics and subscriptions. The settings are those that `crossbus provision` makes. azurerm knows no event
# subscription of a namespace topic, so that topics and subscriptions are made through Azure's own API.

locals {
  api    = "2025-02-15"
  topics = { for name, one in var.topology.topics : name => merge(one.eventgrid, { external = one.external }) if one.eventgrid != null }
  subscriptions = { for key, one in var.topology.subscriptions : key => merge(one, one.eventgrid, {
    retention = try(coalesce(one.eventgrid.retention_seconds, one.retention_seconds), null)
    backstop  = coalesce(one.eventgrid.backstop, one.backstop, local.limits.default_backstop)
    # What the document writes as a text holds any filter; the list beside it is for people, and holds those of texts.
    filters = one.eventgrid.native == null ? jsonencode(merge(
      length(one.eventgrid.included_event_types) == 0 ? {} : { includedEventTypes = one.eventgrid.included_event_types },
      length(one.eventgrid.filters) == 0 ? {} : { filters = [for filter in one.eventgrid.filters : { operatorType = filter.operator_type, key = filter.key, values = filter.values }] },
    )) : one.eventgrid.native
  }) if one.eventgrid != null }

  namespace_id = var.namespace_id == null ? one(azurerm_eventgrid_namespace.this[*].id) : var.namespace_id
  topic_ids    = { for name, one in local.topics : name => one.external ? "${local.namespace_id}/topics/${one.topic}" : local.made_topics[name] }

  # Terraform reads all of a resource each time that one of it is named: with many subscriptions that takes minutes, and so
  # each is read once, here.
  made_topics = { for name, one in azapi_resource.topic : name => one.id }
  dead_topics = { for key, one in azapi_resource.dead_topic : key => one.id }

  backstop = var.backstop == null ? {} : { deadLetterDestinationWithResourceIdentity = {
    identity = { type = "SystemAssigned" }
    deadLetterDestination = {
      endpointType = "StorageBlob"
      properties   = { resourceId = var.backstop.storage_account_id, blobContainerName = var.backstop.container }
    }
  } }

  # A time as Azure gives it back, so that no plan finds a difference: P1DT2H and not PT93600S.
  times = { for key, one in local.subscriptions : key => {
    days    = floor(one.retention / 86400)
    hours   = floor(one.retention / 3600) % 24
    minutes = floor(one.retention / 60) % 60
    seconds = one.retention % 60
  } if one.retention != null }
  retentions = { for key, one in local.times : key => join("", [
    "P", one.days > 0 ? "${one.days}D" : "",
    one.hours + one.minutes + one.seconds > 0 ? "T" : "",
    one.hours > 0 ? "${one.hours}H" : "", one.minutes > 0 ? "${one.minutes}M" : "", one.seconds > 0 ? "${one.seconds}S" : "",
  ]) }
}

resource "azurerm_eventgrid_namespace" "this" {
  count                 = var.namespace_id == null ? 1 : 0
  name                  = var.namespace.name
  resource_group_name   = var.resource_group_name
  location              = var.location
  sku                   = "Standard"
  capacity              = var.namespace.capacity
  public_network_access = var.namespace.public_network_access ? "Enabled" : "Disabled"
  tags                  = var.tags
  identity {
    type = "SystemAssigned"
  }
  dynamic "inbound_ip_rule" {
    for_each = var.namespace.inbound_ip_ranges
    content {
      ip_mask = inbound_ip_rule.value
      action  = "Allow"
    }
  }
}

# The host name that programs connect to.
data "azapi_resource" "namespace" {
  type                   = "Microsoft.EventGrid/namespaces@${local.api}"
  resource_id            = local.namespace_id
  response_export_values = ["properties.topicsConfiguration.hostname"]
}

resource "azapi_resource" "topic" {
  for_each  = { for name, one in local.topics : name => one if !one.external }
  type      = "Microsoft.EventGrid/namespaces/topics@${local.api}"
  name      = each.value.topic
  parent_id = local.namespace_id
  body = { properties = {
    publisherType        = "Custom"
    inputSchema          = "CloudEventSchemaV1_0"
    eventRetentionInDays = 7 # the most that Event Grid has
  } }
}

resource "azapi_resource" "subscription" {
  for_each  = local.subscriptions
  type      = "Microsoft.EventGrid/namespaces/topics/eventSubscriptions@${local.api}"
  name      = each.value.subscription
  parent_id = local.topic_ids[each.value.topic]
  body = { properties = {
    eventDeliverySchema = "CloudEventSchemaV1_0"
    deliveryConfiguration = {
      deliveryMode = "Queue"
      queue = merge(
        { receiveLockDurationInSeconds = each.value.lease_seconds, maxDeliveryCount = each.value.backstop },
        { for key in compact([lookup(local.retentions, each.key, "")]) : "eventTimeToLive" => key },
        local.backstop,
      )
    }
    filtersConfiguration = jsondecode(each.value.filters == "" ? "{}" : each.value.filters)
  } }
  depends_on = [azapi_resource.dead_subscription, azurerm_role_assignment.backstop]
}

resource "azapi_resource" "dead_topic" {
  for_each  = local.subscriptions
  type      = "Microsoft.EventGrid/namespaces/topics@${local.api}"
  name      = each.value.dead_letter_topic
  parent_id = local.namespace_id
  body = { properties = {
    publisherType        = "Custom"
    inputSchema          = "CloudEventSchemaV1_0"
    eventRetentionInDays = 7
  } }
}

# A topic without a subscription hands out nothing: through this one the dead letter is read.
resource "azapi_resource" "dead_subscription" {
  for_each  = local.subscriptions
  type      = "Microsoft.EventGrid/namespaces/topics/eventSubscriptions@${local.api}"
  name      = each.value.dead_letter_subscription
  parent_id = local.dead_topics[each.key]
  body = { properties = {
    eventDeliverySchema = "CloudEventSchemaV1_0"
    deliveryConfiguration = {
      deliveryMode = "Queue"
      queue        = merge({ receiveLockDurationInSeconds = 60, maxDeliveryCount = 10 }, local.backstop)
    }
  } }
  depends_on = [azurerm_role_assignment.backstop]
}

# The namespace writes to the container with its own identity.
resource "azurerm_role_assignment" "backstop" {
  count                = var.backstop != null && var.namespace_id == null ? 1 : 0
  scope                = "${var.backstop.storage_account_id}/blobServices/default/containers/${var.backstop.container}"
  role_definition_name = "Storage Blob Data Contributor"
  principal_id         = one(azurerm_eventgrid_namespace.this[0].identity[*].principal_id)
}
