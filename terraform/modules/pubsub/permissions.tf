# What programs need, and no more. The roles are those of the adapter's page; a test holds the two against each other.

locals {
  permissions = {
    publish = {
      topic = "roles/pubsub.publisher"
    }
    consume = {
      subscription      = "roles/pubsub.subscriber" # and each older generation
      dead_letter_topic = "roles/pubsub.publisher"
    }
    operate = {
      topic                    = "roles/pubsub.publisher"
      dead_letter_subscription = "roles/pubsub.subscriber"
    }
    inspect = {
      topics_and_subscriptions = "roles/pubsub.viewer"
    }
  }

  # By topic or subscription, what is granted on which resource.
  publish = { for name, one in local.topics : name => [{ kind = "topic", name = "projects/${one.project}/topics/${one.short}", role = local.permissions.publish.topic }] }
  consume = { for key, one in local.subscriptions : key => concat(
    [for name, generation in local.generations : { kind = "subscription", name = startswith(name, "projects/") ? name : "projects/${var.project}/subscriptions/${name}", role = local.permissions.consume.subscription } if generation.key == key],
    [{ kind = "topic", name = "projects/${one.dead_project}/topics/${one.dead_short}", role = local.permissions.consume.dead_letter_topic }],
  ) }
  readers = { for key, one in local.subscriptions : key => startswith(one.dead_letter_subscription, "projects/") ? one.dead_letter_subscription : "projects/${var.project}/subscriptions/${one.dead_letter_subscription}" }
  operate = { for key, one in local.subscriptions : key => [
    { kind = "subscription", name = local.readers[key], role = local.permissions.operate.dead_letter_subscription },
    { kind = "topic", name = "projects/${local.topics[one.topic].project}/topics/${local.topics[one.topic].short}", role = local.permissions.operate.topic },
  ] }
  inspect = concat(
    [for one in local.topics : { kind = "topic", name = "projects/${one.project}/topics/${one.short}", role = local.permissions.inspect.topics_and_subscriptions } if !one.external],
    [for one in local.subscriptions : { kind = "topic", name = "projects/${one.dead_project}/topics/${one.dead_short}", role = local.permissions.inspect.topics_and_subscriptions }],
    [for name in keys(local.generations) : { kind = "subscription", name = startswith(name, "projects/") ? name : "projects/${var.project}/subscriptions/${name}", role = local.permissions.inspect.topics_and_subscriptions }],
    [for name in values(local.readers) : { kind = "subscription", name = name, role = local.permissions.inspect.topics_and_subscriptions }],
  )

  federated = { for name, one in var.access : name => one if one.aws != null || one.oidc != null }
  members = { for name, one in var.access : name => concat(
    one.members,
    one.aws == null ? [] : [for role in one.aws.roles : "principalSet://iam.googleapis.com/${local.pool}/attribute.aws_role/arn:aws:sts::${one.aws.account_id}:assumed-role/${role}"],
    one.oidc == null ? [] : [for subject in one.oidc.subjects : "principal://iam.googleapis.com/${local.pool}/subject/${subject}"],
  ) }
  pool = one([for one in google_iam_workload_identity_pool.this : one.name])

  grants = merge(flatten([for name, one in var.access : [for index, member in local.members[name] : {
    for grant in distinct(concat(
      flatten([for topic in one.publish : local.publish[topic]]),
      flatten([for key in one.consume : local.consume[key]]),
      flatten([for key in one.operate : local.operate[key]]),
      one.inspect ? local.inspect : [],
    )) : "${name}/${index}/${grant.name}/${grant.role}" => merge(grant, { member = member })
  }]])...)
}

resource "google_pubsub_topic_iam_member" "access" {
  for_each   = { for key, one in local.grants : key => one if one.kind == "topic" }
  project    = split("/", each.value.name)[1]
  topic      = split("/", each.value.name)[3]
  role       = each.value.role
  member     = each.value.member
  depends_on = [google_pubsub_topic.this, google_pubsub_topic.dead]
}

resource "google_pubsub_subscription_iam_member" "access" {
  for_each     = { for key, one in local.grants : key => one if one.kind == "subscription" }
  project      = split("/", each.value.name)[1]
  subscription = split("/", each.value.name)[3]
  role         = each.value.role
  member       = each.value.member
  depends_on   = [google_pubsub_subscription.this, google_pubsub_subscription.dead]
}

# --- identities of other clouds, without keys ---

resource "google_iam_workload_identity_pool" "this" {
  count                     = length(local.federated) > 0 ? 1 : 0
  project                   = var.project
  workload_identity_pool_id = var.pool_id
  display_name              = "crossbus"
  description               = "Programs of other clouds that publish and consume"
}

resource "google_iam_workload_identity_pool_provider" "this" {
  for_each                           = local.federated
  project                            = var.project
  workload_identity_pool_id          = google_iam_workload_identity_pool.this[0].workload_identity_pool_id
  workload_identity_pool_provider_id = each.key
  attribute_mapping = each.value.aws == null ? { "google.subject" = "assertion.sub" } : {
    "google.subject"     = "assertion.arn"
    "attribute.aws_role" = "assertion.arn.extract('{account_arn}assumed-role/') + 'assumed-role/' + assertion.arn.extract('assumed-role/{role_name}/')"
  }
  attribute_condition = each.value.aws == null ? "assertion.sub in ${jsonencode(each.value.oidc.subjects)}" : "attribute.aws_role in ${jsonencode([for role in each.value.aws.roles : "arn:aws:sts::${each.value.aws.account_id}:assumed-role/${role}"])}"
  dynamic "aws" {
    for_each = each.value.aws == null ? [] : [each.value.aws]
    content {
      account_id = aws.value.account_id
    }
  }
  dynamic "oidc" {
    for_each = each.value.aws == null ? [each.value.oidc] : []
    content {
      issuer_uri        = oidc.value.issuer
      allowed_audiences = oidc.value.audiences
    }
  }
}
