# What programs need, and no more. The roles are those of the adapter's page; a test holds the two against each other.

locals {
  permissions = {
    publish = {
      topic = "EventGrid Data Sender"
    }
    consume = {
      topic             = "EventGrid Data Receiver"
      dead_letter_topic = "EventGrid Data Sender"
    }
    operate = {
      topic             = "EventGrid Data Sender"
      dead_letter_topic = ["EventGrid Data Receiver", "EventGrid Data Sender"]
    }
    inspect = {
      namespace = "Reader"
    }
  }

  # By topic or subscription, which role on which resource; `at` names the resource where its id is not known yet.
  publish = { for name, id in local.topic_ids : name => [{ at = "topic/${name}", scope = id, role = local.permissions.publish.topic }] }
  consume = { for key, one in local.subscriptions : key => [
    { at = "topic/${one.topic}", scope = local.topic_ids[one.topic], role = local.permissions.consume.topic },
    { at = "dead/${key}", scope = local.dead_topics[key], role = local.permissions.consume.dead_letter_topic },
  ] }
  operate = { for key, one in local.subscriptions : key => concat(
    [{ at = "topic/${one.topic}", scope = local.topic_ids[one.topic], role = local.permissions.operate.topic }],
    [for role in local.permissions.operate.dead_letter_topic : { at = "dead/${key}", scope = local.dead_topics[key], role = role }],
  ) }
  inspect = [{ at = "namespace", scope = local.namespace_id, role = local.permissions.inspect.namespace }]

  principals = { for name, one in var.access : name => concat(one.principal_ids, one.oidc == null ? [] : [azurerm_user_assigned_identity.this[name].principal_id]) }
  grants = merge(flatten([for name, one in var.access : [for index in range(length(one.principal_ids) + (one.oidc == null ? 0 : 1)) : {
    for grant in concat(
      flatten([for topic in distinct(one.publish) : local.publish[topic]]),
      flatten([for key in distinct(one.consume) : local.consume[key]]),
      flatten([for key in distinct(one.operate) : local.operate[key]]),
      one.inspect ? local.inspect : [],
    ) : "${name}/${index}/${grant.at}/${grant.role}" => merge(grant, { principal = local.principals[name][index] })...
  }]])...)
}

resource "azurerm_role_assignment" "access" {
  for_each             = local.grants
  scope                = each.value[0].scope
  role_definition_name = each.value[0].role
  principal_id         = each.value[0].principal
}

# --- identities of other clouds, without keys ---

resource "azurerm_user_assigned_identity" "this" {
  for_each            = { for name, one in var.access : name => one if one.oidc != null }
  name                = "${var.namespace.name}-${each.key}"
  resource_group_name = var.resource_group_name
  location            = var.location
  tags                = var.tags
}

resource "azurerm_federated_identity_credential" "this" {
  for_each            = { for name, one in var.access : name => one.oidc if one.oidc != null }
  name                = "crossbus"
  resource_group_name = var.resource_group_name
  parent_id           = azurerm_user_assigned_identity.this[each.key].id
  issuer              = each.value.issuer
  subject             = each.value.subject
  audience            = [each.value.audience]
}
