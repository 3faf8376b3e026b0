# With mocks: no account and no network. The same file runs with any release of the provider.

mock_provider "aws" {
  mock_resource "aws_cloudwatch_event_bus" {
    defaults = { arn = "arn:aws:events:eu-west-1:123456789012:event-bus/orders" }
  }
  mock_resource "aws_cloudwatch_event_rule" {
    defaults = { arn = "arn:aws:events:eu-west-1:123456789012:rule/orders/orders--billing" }
  }
  mock_resource "aws_cloudwatch_event_archive" {
    defaults = { arn = "arn:aws:events:eu-west-1:123456789012:archive/orders" }
  }
  mock_resource "aws_sqs_queue" {
    defaults = {
      arn = "arn:aws:sqs:eu-west-1:123456789012:orders--billing"
      url = "https://sqs.eu-west-1.amazonaws.com/123456789012/orders--billing"
    }
  }
  mock_resource "aws_iam_openid_connect_provider" {
    defaults = { arn = "arn:aws:iam::123456789012:oidc-provider/sts.windows.net" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/shop" }
  }
  mock_data "aws_cloudwatch_event_bus" {
    defaults = { arn = "arn:aws:events:eu-west-1:123456789012:event-bus/theirs" }
  }
}

variables {
  topology          = jsondecode(file("tests/topology.json")).topology
  max_message_bytes = 262144 # what every release of the provider takes
}

run "everything_is_made_as_the_program_makes_it" {
  assert {
    condition     = toset(keys(aws_cloudwatch_event_bus.this)) == toset(["orders", "payments"])
    error_message = "one bus for each topic"
  }
  assert {
    condition     = aws_cloudwatch_event_rule.this["orders/billing"].name == "orders--billing" && aws_cloudwatch_event_rule.this["orders/billing"].event_pattern == "{\"detail-type\":[\"com.acme.order.placed\"]}" && aws_cloudwatch_event_rule.this["orders/billing"].state == "ENABLED"
    error_message = "the rule has the name and the pattern of the topology"
  }
  assert {
    condition     = aws_cloudwatch_event_target.this["orders/billing"].dead_letter_config[0].arn == aws_sqs_queue.dead["orders/billing"].arn && aws_cloudwatch_event_target.this["orders/billing"].input_path == null
    error_message = "what cannot be delivered goes into the dead letter, and the envelope is whole"
  }
  assert {
    condition     = aws_sqs_queue.this["orders/shipping"].visibility_timeout_seconds == 120 && aws_sqs_queue.this["orders/shipping"].message_retention_seconds == 86400
    error_message = "lease and retention are those that are declared"
  }
  assert {
    condition     = jsondecode(aws_sqs_queue.this["orders/billing"].redrive_policy) == { deadLetterTargetArn = aws_sqs_queue.dead["orders/billing"].arn, maxReceiveCount = 100 }
    error_message = "the backstop is 100 receives into the dead letter"
  }
  assert {
    condition     = alltrue([for one in aws_sqs_queue.dead : one.message_retention_seconds == 1209600])
    error_message = "a dead letter is kept for 14 days"
  }
  assert {
    condition     = alltrue([for one in concat(values(aws_sqs_queue.this), values(aws_sqs_queue.dead)) : one.sqs_managed_sse_enabled && one.kms_master_key_id == null])
    error_message = "queues are encrypted"
  }
  assert {
    condition     = jsondecode(aws_sqs_queue_policy.dead["orders/billing"].policy).Statement[0].Condition == { ArnEquals = { "aws:SourceArn" = aws_cloudwatch_event_rule.this["orders/billing"].arn } }
    error_message = "the rule, and no other, may send into the dead letter"
  }
  assert {
    condition     = length(aws_sqs_queue_redrive_allow_policy.dead) == 3 && length(aws_cloudwatch_metric_alarm.dead_letters) == 3 && length(aws_cloudwatch_metric_alarm.oldest) == 3
    error_message = "each subscription has its redrive permission and its alarms"
  }
  assert {
    condition     = output.crossbus_toml == "# Made by terraform, from the topology of 2 topics and 3 subscriptions.\n[profiles.eventbridge]\nregion = \"eu-west-1\"\nurl = \"eventbridge:\"\n"
    error_message = "the profile: ${output.crossbus_toml}"
  }
  assert {
    condition     = jsondecode(output.publisher_policies["orders"]).Statement[0].Resource == aws_cloudwatch_event_bus.this["orders"].arn
    error_message = "a publisher may publish to its bus only"
  }
}

run "with_all_that_can_be_chosen" {
  variables {
    kms_key            = "arn:aws:kms:eu-west-1:123456789012:key/1"
    archive_days       = 7
    profile_name       = "production"
    profile_parameters = { role_arn = "arn:aws:iam::123456789012:role/shop" }
    publisher_accounts = { orders = ["210987654321"] }
    alarms             = null
    access = {
      shop      = { publish = ["orders"], consume = ["orders/billing"], principals = ["arn:aws:iam::210987654321:root"], external_id = "acme" }
      reporting = { consume = ["payments/books"], inspect = false, oidc = { issuer = "https://accounts.google.com", audiences = ["crossbus"], subjects = ["1234"] } }
      office    = { operate = ["orders/billing"], services = ["ecs-tasks.amazonaws.com"], oidc = { issuer = "https://sts.windows.net/tenant/", audiences = ["api://crossbus"], subjects = ["5678"] } }
    }
  }
  assert {
    condition     = alltrue([for one in concat(values(aws_sqs_queue.this), values(aws_sqs_queue.dead)) : one.kms_master_key_id == "arn:aws:kms:eu-west-1:123456789012:key/1"])
    error_message = "queues are encrypted with the key"
  }
  assert {
    condition     = aws_cloudwatch_event_archive.this["orders"].retention_days == 7 && length(aws_cloudwatch_metric_alarm.oldest) == 0
    error_message = "archives, and no alarms"
  }
  assert {
    condition     = strcontains(output.crossbus_toml, "[profiles.production]\n") && strcontains(output.crossbus_toml, "archive = \"7\"\n") && strcontains(output.crossbus_toml, "[profiles.production.subscriptions.\"orders/billing\"]\noptions = { kms_key = \"arn:aws:kms:eu-west-1:123456789012:key/1\" }\n")
    error_message = "the profile says so too: ${output.crossbus_toml}"
  }
  assert {
    condition     = jsondecode(aws_cloudwatch_event_bus_policy.this["orders"].policy).Statement[0].Principal.AWS == ["210987654321"]
    error_message = "the other account may publish"
  }
  assert {
    condition     = jsondecode(aws_iam_role.this["shop"].assume_role_policy).Statement[0].Condition.StringEquals["sts:ExternalId"] == "acme"
    error_message = "the role asks for the external id"
  }
  assert {
    condition     = jsondecode(aws_iam_role.this["reporting"].assume_role_policy).Statement[0].Principal.Federated == "accounts.google.com" && jsondecode(aws_iam_role.this["reporting"].assume_role_policy).Statement[0].Condition.StringEquals["accounts.google.com:sub"] == ["1234"]
    error_message = "a Google service account takes the role on"
  }
  assert {
    condition     = length(aws_iam_openid_connect_provider.this) == 1 && length(jsondecode(aws_iam_role.this["office"].assume_role_policy).Statement) == 2
    error_message = "an identity of Azure, or a service, takes the role on"
  }
  assert {
    condition     = alltrue([for one in jsondecode(aws_iam_role_policy.this["reporting"].policy).Statement : !contains(flatten([one.Action]), "events:PutEvents")])
    error_message = "who consumes cannot publish"
  }
}

run "several_topics_on_one_bus_and_one_of_another_account" {
  command = plan
  variables {
    topology = {
      version = 1
      topics = {
        orders   = { eventbridge = { bus = "prod-shop", shared = true } }
        payments = { eventbridge = { bus = "prod-shop", shared = true } }
        theirs   = { external = true, eventbridge = { bus = "arn:aws:events:eu-west-1:210987654321:event-bus/theirs" } }
      }
      subscriptions = {
        "theirs/billing" = { topic = "theirs", name = "billing", backstop = 7, eventbridge = { rule = "prod-theirs--billing", queue = "prod-theirs--billing", dead_letter_queue = "prod-theirs--billing--dead", pattern = "{}" } }
      }
    }
  }
  assert {
    condition     = toset(keys(aws_cloudwatch_event_bus.this)) == toset(["prod-shop"])
    error_message = "the shared bus is made once, and the external one not at all"
  }
  assert {
    condition     = aws_cloudwatch_event_rule.this["theirs/billing"].event_bus_name == "arn:aws:events:eu-west-1:210987654321:event-bus/theirs"
    error_message = "the rule is on the bus of the other account"
  }
}

run "a_profile_that_is_there_is_told_where" {
  variables {
    profile_name = "production"
    topology     = merge(jsondecode(file("tests/topology.json")).topology, { profile = "production" })
  }
  assert {
    condition     = output.profile == { region = "eu-west-1" } && strcontains(output.crossbus_toml, "[profiles.production]\n")
    error_message = "the profile: ${output.crossbus_toml}"
  }
}

run "what_eventbridge_cannot_do_is_refused" {
  command = plan
  variables {
    topology = {
      version = 1
      topics  = { orders = { eventbridge = { bus = "orders" } } }
      subscriptions = {
        "orders/billing" = { topic = "orders", name = "billing", ordered = true, eventbridge = { rule = "orders--billing", queue = "orders--billing", dead_letter_queue = "orders--billing--dead", pattern = "{}" } }
      }
    }
  }
  expect_failures = [var.topology]
}

run "what_the_program_refused_is_refused" {
  command = plan
  variables {
    topology = {
      version       = 1
      topics        = { orders = { eventbridge = { bus = "orders" } } }
      subscriptions = { "orders/billing" = { topic = "orders", name = "billing", refused = { eventbridge = "subscription orders/billing: no" } } }
    }
  }
  expect_failures = [var.topology]
}

run "a_retention_that_outlives_the_dead_letter_is_warned_of" {
  command = plan
  variables {
    topology = {
      version = 1
      topics  = { orders = { eventbridge = { bus = "orders" } } }
      subscriptions = {
        "orders/billing" = { topic = "orders", name = "billing", retention_seconds = 1209600, eventbridge = { rule = "orders--billing", queue = "orders--billing", dead_letter_queue = "orders--billing--dead", pattern = "{}" } }
      }
    }
  }
  expect_failures = [check.retention]
}

run "more_rules_than_a_bus_has_are_warned_of" {
  command = plan
  variables {
    rules_per_bus = 1
  }
  expect_failures = [check.rules]
}

run "a_role_that_nobody_may_take_on_is_refused" {
  command = plan
  variables {
    access = { shop = { publish = ["orders"] } }
  }
  expect_failures = [var.access]
}

run "a_role_for_a_topic_that_is_none_is_refused" {
  command = plan
  variables {
    access = { shop = { publish = ["order"], services = ["ecs-tasks.amazonaws.com"] } }
  }
  expect_failures = [var.access]
}

run "nothing_declared_is_nothing_made" {
  command = plan
  variables {
    topology = { version = 1 }
  }
  assert {
    condition     = length(aws_sqs_queue.this) == 0
    error_message = "nothing"
  }
}

run "who_may_publish_to_a_topic_of_others_is_not_said_here" {
  command = plan
  variables {
    topology           = { version = 1, topics = { theirs = { external = true, eventbridge = { bus = "theirs" } } } }
    publisher_accounts = { theirs = ["210987654321"] }
  }
  expect_failures = [var.publisher_accounts]
}
