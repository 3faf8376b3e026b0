# With mocks: no account and no network. The same file runs with any release of the provider.

mock_provider "google" {
  mock_data "google_project" {
    defaults = { number = "123456789" }
  }
  mock_resource "google_iam_workload_identity_pool" {
    defaults = { name = "projects/123456789/locations/global/workloadIdentityPools/crossbus" }
  }
}

variables {
  project  = "my-project"
  topology = jsondecode(file("tests/topology.json")).topology
}

run "everything_is_made_as_the_program_makes_it" {
  assert {
    condition     = google_pubsub_topic.this["orders"].name == "orders" && google_pubsub_topic.dead["orders/billing"].name == "orders--billing--dead"
    error_message = "topics, and those of dead letters"
  }
  assert {
    condition     = google_pubsub_subscription.this["orders--billing--49c71bd5"].filter == "attributes.ce-type = \"com.acme.order.placed\"" && google_pubsub_subscription.this["payments--books"].filter == null
    error_message = "a subscription has the name and the filter of the topology"
  }
  assert {
    condition     = google_pubsub_subscription.this["orders--shipping--6a260213"].ack_deadline_seconds == 120 && google_pubsub_subscription.this["orders--shipping--6a260213"].message_retention_duration == "86400s" && google_pubsub_subscription.this["payments--books"].message_retention_duration == "604800s"
    error_message = "lease and retention are those that are declared"
  }
  assert {
    condition     = alltrue([for one in google_pubsub_subscription.this : one.retain_acked_messages && !one.enable_message_ordering && !one.enable_exactly_once_delivery && one(one.expiration_policy).ttl == ""])
    error_message = "subscriptions keep what was acknowledged, for replays, and never remove themselves"
  }
  assert {
    condition     = one(google_pubsub_subscription.this["payments--books"].dead_letter_policy).max_delivery_attempts == 100 && one(google_pubsub_subscription.this["payments--books"].dead_letter_policy).dead_letter_topic == google_pubsub_topic.dead["payments/books"].id
    error_message = "the backstop is 100 receives into the dead letter"
  }
  assert {
    condition     = alltrue([for one in google_pubsub_subscription.dead : one.message_retention_duration == "2678400s" && one.ack_deadline_seconds == 60])
    error_message = "a dead letter is kept for 31 days"
  }
  assert {
    condition     = google_pubsub_topic_iam_member.service_agent["orders/billing"].member == "serviceAccount:service-123456789@gcp-sa-pubsub.iam.gserviceaccount.com" && length(google_pubsub_subscription_iam_member.service_agent) == 3
    error_message = "Pub/Sub's service agent has both grants"
  }
  assert {
    condition     = can(regex("^[0-9]{8}t[0-9]{6}z$", google_pubsub_subscription.this["payments--books"].labels["crossbus-made"]))
    error_message = "the label says when it was made: ${google_pubsub_subscription.this["payments--books"].labels["crossbus-made"]}"
  }
  assert {
    condition     = !contains(keys(google_pubsub_subscription.this["payments--books"].labels), "crossbus") && !contains(keys(google_pubsub_topic.this["orders"].labels), "crossbus")
    error_message = "nothing bears the label by which crossbus prunes what it made itself"
  }
  assert {
    condition     = length(google_monitoring_alert_policy.dead_letters) == 3 && length(google_monitoring_alert_policy.oldest) == 3
    error_message = "each subscription has its alert policies"
  }
  assert {
    condition     = output.crossbus_toml == "# Made by terraform, from the topology of 2 topics and 3 subscriptions.\n[profiles.pubsub]\nurl = \"pubsub:my-project\"\n"
    error_message = "the profile: ${output.crossbus_toml}"
  }
}

run "with_all_that_can_be_chosen" {
  variables {
    kms_key_name            = "projects/my-project/locations/europe-west1/keyRings/crossbus/cryptoKeys/events"
    allowed_regions         = ["europe-west1"]
    topic_retention_seconds = 86400
    labels                  = { team = "shop" }
    alarms                  = null
    access = {
      shop      = { publish = ["orders"], members = ["serviceAccount:shop@my-project.iam.gserviceaccount.com"] }
      from-aws  = { consume = ["orders/billing"], inspect = false, aws = { account_id = "123456789012", roles = ["billing"] } }
      from-oidc = { operate = ["payments/books"], inspect = false, oidc = { issuer = "https://sts.windows.net/tenant/", audiences = ["api://crossbus"], subjects = ["5678"] } }
    }
  }
  assert {
    condition     = alltrue([for one in concat(values(google_pubsub_topic.this), values(google_pubsub_topic.dead)) : one.kms_key_name == var.kms_key_name && one(one.message_storage_policy).allowed_persistence_regions == tolist(["europe-west1"])])
    error_message = "topics are encrypted with the key, and stay in the region"
  }
  assert {
    condition     = google_pubsub_topic.this["orders"].message_retention_duration == "86400s" && google_pubsub_topic.dead["orders/billing"].message_retention_duration == null && length(google_monitoring_alert_policy.oldest) == 0
    error_message = "topics keep events, and there are no alert policies"
  }
  assert {
    condition     = google_pubsub_topic_iam_member.access["shop/0/projects/my-project/topics/orders/roles/pubsub.publisher"].member == "serviceAccount:shop@my-project.iam.gserviceaccount.com"
    error_message = "a member may publish"
  }
  assert {
    condition     = google_pubsub_subscription_iam_member.access["from-aws/0/projects/my-project/subscriptions/orders--billing--49c71bd5/roles/pubsub.subscriber"].member == "principalSet://iam.googleapis.com/projects/123456789/locations/global/workloadIdentityPools/crossbus/attribute.aws_role/arn:aws:sts::123456789012:assumed-role/billing"
    error_message = "a role of AWS may consume"
  }
  assert {
    condition     = google_iam_workload_identity_pool_provider.this["from-oidc"].attribute_condition == "assertion.sub in [\"5678\"]" && one(google_iam_workload_identity_pool_provider.this["from-oidc"].oidc).issuer_uri == "https://sts.windows.net/tenant/"
    error_message = "an identity of Azure, and no other, is let in"
  }
  assert {
    condition     = length([for key in keys(google_pubsub_topic_iam_member.access) : key if startswith(key, "from-aws/") && endswith(key, "publisher") && !strcontains(key, "--dead")]) == 0
    error_message = "who consumes cannot publish, but for dead letters"
  }
}

run "another_filter_keeps_the_older_generation" {
  variables {
    topology = merge(jsondecode(file("tests/topology.json")).topology, {
      subscriptions = {
        "orders/billing" = { topic = "orders", name = "billing", attempts = 5, pubsub = {
          subscription             = "orders--billing--${substr(sha256("attributes.ce-type = \"com.acme.order.paid\""), 0, 8)}"
          filter                   = "attributes.ce-type = \"com.acme.order.paid\""
          dead_letter_topic        = "orders--billing--dead"
          dead_letter_subscription = "orders--billing--dead"
          older_generations        = { "orders--billing--49c71bd5" = "attributes.ce-type = \"com.acme.order.placed\"" }
        } }
      }
    })
  }
  assert {
    condition     = length(google_pubsub_subscription.this) == 2 && google_pubsub_subscription.this["orders--billing--49c71bd5"].id == run.with_all_that_can_be_chosen.subscriptions["orders/billing"].generations[0]
    error_message = "the older generation is still the one that was there"
  }
  assert {
    condition     = length(output.consumer_roles["orders/billing"]) == 3 && length(google_pubsub_subscription_iam_member.service_agent) == 2
    error_message = "consumers may read both, and both have the backstop"
  }
}

run "a_filter_that_was_changed_by_hand_is_refused" {
  command = plan
  variables {
    topology = {
      version = 1
      topics  = { orders = { pubsub = { topic = "orders" } } }
      subscriptions = {
        "orders/billing" = { topic = "orders", name = "billing", pubsub = { subscription = "orders--billing--49c71bd5", filter = "attributes.ce-type = \"x\"", dead_letter_topic = "orders--billing--dead", dead_letter_subscription = "orders--billing--dead" } }
      }
    }
  }
  expect_failures = [var.topology]
}

run "what_pubsub_cannot_do_is_refused" {
  command = plan
  variables {
    topology = {
      version = 1
      topics  = { orders = { pubsub = { topic = "orders" } } }
      subscriptions = {
        "orders/billing" = { topic = "orders", name = "billing", lease_seconds = 900, pubsub = { subscription = "orders--billing", dead_letter_topic = "orders--billing--dead", dead_letter_subscription = "orders--billing--dead" } }
      }
    }
  }
  expect_failures = [var.topology]
}

run "a_topic_of_another_project_and_order" {
  command = plan
  variables {
    project_number = "42"
    topology = {
      version = 1
      names   = "prod-{name}"
      topics  = { theirs = { external = true, pubsub = { topic = "projects/their-project/topics/orders" } } }
      subscriptions = {
        "theirs/billing" = { topic = "theirs", name = "billing", ordered = true, backstop = 7, pubsub = { subscription = "prod-theirs--billing", dead_letter_topic = "prod-theirs--billing--dead", dead_letter_subscription = "prod-theirs--billing--dead" } }
      }
    }
  }
  assert {
    condition     = length(google_pubsub_topic.this) == 0 && google_pubsub_subscription.this["prod-theirs--billing"].topic == "projects/their-project/topics/orders" && google_pubsub_subscription.this["prod-theirs--billing"].enable_message_ordering
    error_message = "the subscription is on their topic, in order"
  }
  assert {
    condition     = !strcontains(jsonencode(output.inspector_roles), "their-project") && strcontains(jsonencode(output.publisher_roles), "their-project")
    error_message = "nothing of theirs is granted unless it is asked for"
  }
  assert {
    condition     = length(data.google_project.this) == 0 && strcontains(output.crossbus_toml, "\nnames = \"prod-{name}\"\n")
    error_message = "no project is looked up, and the profile has the names"
  }
}

run "a_profile_that_is_there_is_told_where" {
  command = plan
  variables {
    profile_name       = "production"
    topology           = merge(jsondecode(file("tests/topology.json")).topology, { profile = "production" })
    profile_parameters = { impersonate = "shop@my-project.iam.gserviceaccount.com" }
  }
  assert {
    condition     = output.profile == tomap({ target = "my-project", impersonate = "shop@my-project.iam.gserviceaccount.com" }) && strcontains(output.crossbus_toml, "[profiles.production]\n")
    error_message = "the profile: ${output.crossbus_toml}"
  }
}

run "topics_are_not_opened_to_everybody" {
  command = plan
  variables {
    access = { all = { publish = ["orders"], members = ["allUsers"] } }
  }
  expect_failures = [var.access]
}

run "nothing_declared_is_nothing_made" {
  command = plan
  variables {
    topology = { version = 1 }
  }
  assert {
    condition     = length(google_pubsub_subscription.this) == 0
    error_message = "nothing"
  }
}
