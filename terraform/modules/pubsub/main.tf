# Topics and subscriptions. The settings are those that `crossbus provision` makes.

locals {
  # A name of another project is a full one: projects/PROJECT/topics/NAME.
  topics = { for name, one in var.topology.topics : name => merge(one.pubsub, {
    external  = one.external
    project   = startswith(one.pubsub.topic, "projects/") ? split("/", one.pubsub.topic)[1] : var.project
    short     = reverse(split("/", one.pubsub.topic))[0]
    retention = try(coalesce(var.topic_retention_seconds, one.pubsub.retention_seconds), null)
  }) if one.pubsub != null }
  topic_ids = { for name, one in local.topics : name => one.external ? "projects/${one.project}/topics/${one.short}" : local.made_topics[name] }

  subscriptions = { for key, one in var.topology.subscriptions : key => merge(one, one.pubsub, {
    retention    = try(coalesce(one.pubsub.retention_seconds, one.retention_seconds), 604800) # Pub/Sub's own default, 7 days
    backstop     = coalesce(one.pubsub.backstop, one.backstop, local.limits.default_backstop)
    dead_project = startswith(one.pubsub.dead_letter_topic, "projects/") ? split("/", one.pubsub.dead_letter_topic)[1] : var.project
    dead_short   = reverse(split("/", one.pubsub.dead_letter_topic))[0]
  }) if one.pubsub != null }

  # Terraform reads all of a resource each time that one of it is named: with many subscriptions that takes minutes, and so
  # each is read once, here.
  made_topics      = { for name, one in google_pubsub_topic.this : name => one.id }
  made_generations = { for name, one in google_pubsub_subscription.this : name => { id = one.id, name = one.name, project = one.project } }
  dead_topics      = { for key, one in google_pubsub_topic.dead : key => { id = one.id, name = one.name } }
  dead_readers     = { for key, one in google_pubsub_subscription.dead : key => { id = one.id, name = one.name } }

  # Pub/Sub cannot change a filter: another one is another subscription, a generation. The older ones stay, with what
  # waits in them, until the topology does not name them any more.
  generations = merge([for key, one in local.subscriptions : merge(
    { for name, filter in one.older_generations : name => { key = key, filter = filter } },
    { (one.subscription) = { key = key, filter = one.filter } },
  )]...)
}

# When a generation was made. Consumers read a generation and its predecessors, and drop of a predecessor what was published
# since: the successor has it too. The label is a quarter of an hour late: what is published until the apply is over comes
# twice rather than never.
locals {
  made = lower(formatdate("YYYYMMDD'T'hhmmss'Z'", timeadd(timestamp(), "15m")))
}

resource "google_pubsub_topic" "this" {
  for_each                   = { for name, one in local.topics : name => one if !one.external }
  project                    = each.value.project
  name                       = each.value.short
  kms_key_name               = var.kms_key_name
  message_retention_duration = each.value.retention == null ? null : "${each.value.retention}s"
  labels                     = var.labels
  dynamic "message_storage_policy" {
    for_each = var.allowed_regions == null ? [] : [var.allowed_regions]
    content {
      allowed_persistence_regions = message_storage_policy.value
    }
  }
}

resource "google_pubsub_subscription" "this" {
  for_each                     = local.generations
  project                      = startswith(each.key, "projects/") ? split("/", each.key)[1] : var.project
  name                         = reverse(split("/", each.key))[0]
  topic                        = local.topic_ids[local.subscriptions[each.value.key].topic]
  filter                       = each.value.filter == "" ? null : each.value.filter
  ack_deadline_seconds         = ceil(local.subscriptions[each.value.key].lease_seconds)
  message_retention_duration   = "${local.subscriptions[each.value.key].retention}s"
  retain_acked_messages        = local.subscriptions[each.value.key].retain_acked
  enable_message_ordering      = local.subscriptions[each.value.key].ordered
  enable_exactly_once_delivery = local.subscriptions[each.value.key].exactly_once
  labels                       = merge(var.labels, { crossbus-made = local.made })
  expiration_policy {
    ttl = "" # it never removes itself
  }
  dead_letter_policy {
    dead_letter_topic     = local.dead_topics[each.value.key].id
    max_delivery_attempts = local.subscriptions[each.value.key].backstop
  }
  lifecycle {
    create_before_destroy = true
    ignore_changes        = [labels["crossbus-made"]]
  }
}

resource "google_pubsub_topic" "dead" {
  for_each     = local.subscriptions
  project      = each.value.dead_project
  name         = each.value.dead_short
  kms_key_name = var.kms_key_name
  labels       = var.labels
  dynamic "message_storage_policy" {
    for_each = var.allowed_regions == null ? [] : [var.allowed_regions]
    content {
      allowed_persistence_regions = message_storage_policy.value
    }
  }
}

# A topic without a subscription keeps nothing: through this one the dead letter is read, and it keeps as long as Pub/Sub can.
resource "google_pubsub_subscription" "dead" {
  for_each                   = local.subscriptions
  project                    = startswith(each.value.dead_letter_subscription, "projects/") ? split("/", each.value.dead_letter_subscription)[1] : var.project
  name                       = reverse(split("/", each.value.dead_letter_subscription))[0]
  topic                      = local.dead_topics[each.key].id
  ack_deadline_seconds       = 60
  message_retention_duration = "${coalesce(each.value.dead_letter_retention_seconds, 2678400)}s"
  labels                     = var.labels
  expiration_policy {
    ttl = ""
  }
}

# --- the two grants without which Pub/Sub's own dead-lettering does nothing, and says nothing ---

data "google_project" "this" {
  count      = var.project_number == null ? 1 : 0
  project_id = var.project
}

locals {
  number        = var.project_number == null ? one(data.google_project.this[*].number) : var.project_number
  service_agent = "serviceAccount:service-${local.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

resource "google_pubsub_topic_iam_member" "service_agent" {
  for_each = local.subscriptions
  project  = each.value.dead_project
  topic    = local.dead_topics[each.key].name
  role     = "roles/pubsub.publisher"
  member   = local.service_agent
}

resource "google_pubsub_subscription_iam_member" "service_agent" {
  for_each     = local.generations
  project      = local.made_generations[each.key].project
  subscription = local.made_generations[each.key].name
  role         = "roles/pubsub.subscriber"
  member       = local.service_agent
}
