# With mocks: no account and no network. The same file runs with any release of the providers.

mock_provider "azurerm" {
  mock_resource "azurerm_eventgrid_namespace" {
    defaults = { id = "/subscriptions/1/resourceGroups/shop/providers/Microsoft.EventGrid/namespaces/shop" }
  }
  mock_resource "azurerm_user_assigned_identity" {
    defaults = { id = "/subscriptions/1/resourceGroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/shop", principal_id = "00000000-0000-0000-0000-000000000005", client_id = "00000000-0000-0000-0000-000000000006" }
  }
}

mock_provider "azapi" {
  mock_data "azapi_resource" {
    defaults = { output = { properties = { topicsConfiguration = { hostname = "shop.westeurope-1.eventgrid.azure.net" } } } }
  }
}

variables {
  resource_group_name = "shop"
  location            = "westeurope"
  namespace           = { name = "shop" }
  topology            = jsondecode(file("tests/topology.json")).topology
}

run "everything_is_made_as_the_program_makes_it" {
  assert {
    condition     = azapi_resource.topic["orders"].name == "orders" && azapi_resource.topic["orders"].body.properties == { publisherType = "Custom", inputSchema = "CloudEventSchemaV1_0", eventRetentionInDays = 7 }
    error_message = "topics of CloudEvents that keep for 7 days"
  }
  assert {
    condition     = azapi_resource.subscription["orders/billing"].name == "billing" && azapi_resource.subscription["orders/billing"].parent_id == azapi_resource.topic["orders"].id
    error_message = "subscriptions have the name of the topology, within their topic"
  }
  assert {
    condition     = azapi_resource.subscription["orders/shipping"].body.properties.deliveryConfiguration == { deliveryMode = "Queue", queue = { receiveLockDurationInSeconds = 120, maxDeliveryCount = 10, eventTimeToLive = "P1D" } }
    error_message = "lease and retention are those that are declared"
  }
  assert {
    condition     = jsonencode(azapi_resource.subscription["orders/billing"].body.properties.filtersConfiguration) == jsonencode({ includedEventTypes = ["com.acme.order.placed"] }) && jsonencode(azapi_resource.subscription["orders/shipping"].body.properties.filtersConfiguration) == jsonencode({ filters = [{ key = "eventtype", operatorType = "StringBeginsWith", values = ["com.acme.order."] }] })
    error_message = "the filters are those of the topology, and no mark of crossbus's is among them"
  }
  assert {
    condition     = azapi_resource.dead_topic["orders/billing"].name == "orders--billing--dead" && azapi_resource.dead_subscription["orders/billing"].name == "dead-letters" && azapi_resource.dead_subscription["orders/billing"].body.properties.deliveryConfiguration.queue == { receiveLockDurationInSeconds = 60, maxDeliveryCount = 10 }
    error_message = "each subscription has its dead letter"
  }
  assert {
    condition     = length(azurerm_monitor_metric_alert.dead_letters) == 3 && length(azurerm_monitor_metric_alert.dropped) == 1
    error_message = "each dead letter has its alert"
  }
  assert {
    condition     = output.crossbus_toml == "# Made by terraform, from the topology of 2 topics and 3 subscriptions.\n[profiles.eventgrid]\nresource_group = \"shop\"\nsubscription_id = \"1\"\nurl = \"eventgrid://shop.westeurope-1.eventgrid.azure.net\"\n"
    error_message = "the profile: ${output.crossbus_toml}"
  }
}

run "with_all_that_can_be_chosen" {
  variables {
    namespace = { name = "shop", capacity = 2, public_network_access = false, inbound_ip_ranges = ["192.0.2.0/24"] }
    backstop  = { storage_account_id = "/subscriptions/1/resourceGroups/shop/providers/Microsoft.Storage/storageAccounts/shop", container = "dropped" }
    alarms    = null
    access = {
      shop      = { publish = ["orders"], consume = ["orders/billing", "orders/shipping"], principal_ids = ["00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"] }
      reporting = { operate = ["payments/books"], inspect = false, oidc = { issuer = "https://accounts.google.com", subject = "1234" } }
    }
  }
  assert {
    condition     = azapi_resource.subscription["orders/billing"].body.properties.deliveryConfiguration.queue.deadLetterDestinationWithResourceIdentity.deadLetterDestination.properties.blobContainerName == "dropped" && length(azurerm_role_assignment.backstop) == 1
    error_message = "what would be dropped goes into the container"
  }
  assert {
    condition     = length(azurerm_role_assignment.access) == 2 * 5 + 3
    error_message = "two principals send and receive on the topic, send to two dead letters and read the namespace; an operator has three roles: ${join(", ", keys(azurerm_role_assignment.access))}"
  }
  assert {
    condition     = azurerm_federated_identity_credential.this["reporting"].issuer == "https://accounts.google.com" && azurerm_role_assignment.access["reporting/0/topic/payments/EventGrid Data Sender"].principal_id == "00000000-0000-0000-0000-000000000005"
    error_message = "an identity of Google takes the managed identity on"
  }
  assert {
    condition     = azurerm_eventgrid_namespace.this[0].public_network_access == "Disabled" && strcontains(output.crossbus_toml, "backstop_container = \"dropped\"\n")
    error_message = "the namespace is closed, and the profile knows of the container"
  }
}

run "a_namespace_that_is_there_and_any_filter" {
  command = plan
  variables {
    namespace_id = "/subscriptions/2/resourceGroups/theirs/providers/Microsoft.EventGrid/namespaces/theirs"
    topology = {
      version = 1
      names   = "prod-{name}"
      topics  = { orders = { external = true, eventgrid = { topic = "their-orders" } } }
      subscriptions = {
        "orders/billing" = { topic = "orders", name = "billing", attempts = 3, backstop = 7, retention_seconds = 93784, eventgrid = {
          subscription      = "billing"
          dead_letter_topic = "prod-orders--billing--dead"
          native            = "{\"filters\":[{\"key\":\"data.total\",\"operatorType\":\"NumberGreaterThan\",\"value\":10.5},{\"key\":\"data.size\",\"operatorType\":\"NumberInRange\",\"values\":[[1,2],[3,4]]}]}"
        } }
      }
    }
  }
  assert {
    condition     = length(azurerm_eventgrid_namespace.this) == 0 && azapi_resource.subscription["orders/billing"].parent_id == "/subscriptions/2/resourceGroups/theirs/providers/Microsoft.EventGrid/namespaces/theirs/topics/their-orders"
    error_message = "nothing is made but the subscription and its dead letter"
  }
  assert {
    condition     = azapi_resource.subscription["orders/billing"].body.properties.filtersConfiguration.filters[0].value == 10.5 && azapi_resource.subscription["orders/billing"].body.properties.filtersConfiguration.filters[1].values[1][0] == 3
    error_message = "numbers stay numbers"
  }
  assert {
    condition     = azapi_resource.subscription["orders/billing"].body.properties.deliveryConfiguration.queue == { receiveLockDurationInSeconds = 60, maxDeliveryCount = 7, eventTimeToLive = "P1DT2H3M4S" }
    error_message = "a retention is written as Azure gives it back"
  }
  assert {
    condition     = strcontains(output.crossbus_toml, "\nnames = \"prod-{name}\"\n") && strcontains(output.crossbus_toml, "\nresource_group = \"theirs\"\n")
    error_message = "the profile: ${output.crossbus_toml}"
  }
}

run "a_profile_that_is_there_is_told_where" {
  variables {
    profile_name = "production"
    topology     = merge(jsondecode(file("tests/topology.json")).topology, { profile = "production" })
  }
  assert {
    condition     = output.profile == { target = "shop.westeurope-1.eventgrid.azure.net", resource_group = "shop", subscription_id = "1" }
    error_message = "the profile: ${output.crossbus_toml}"
  }
}

run "what_event_grid_cannot_do_is_refused" {
  command = plan
  variables {
    topology = {
      version = 1
      topics  = { orders = { eventgrid = { topic = "orders" } } }
      subscriptions = {
        "orders/billing" = { topic = "orders", name = "billing", attempts = 12, eventgrid = { subscription = "billing", dead_letter_topic = "orders--billing--dead" } }
      }
    }
  }
  expect_failures = [var.topology]
}

run "order_is_refused" {
  command = plan
  variables {
    topology = {
      version = 1
      topics  = { orders = { eventgrid = { topic = "orders" } } }
      subscriptions = {
        "orders/billing" = { topic = "orders", name = "billing", attempts = 5, ordered = true, eventgrid = { subscription = "billing", dead_letter_topic = "orders--billing--dead" } }
      }
    }
  }
  expect_failures = [var.topology]
}

run "a_namespace_that_is_too_large_is_refused" {
  command = plan
  variables {
    namespace = { name = "shop", capacity = 41 }
  }
  expect_failures = [var.namespace]
}

run "nothing_declared_is_nothing_made" {
  command = plan
  variables {
    topology = { version = 1 }
  }
  assert {
    condition     = length(azapi_resource.subscription) == 0
    error_message = "nothing"
  }
}
