# Everything that the module has: a container for what Event Grid would drop, alerts, addresses from which the namespace is
# reached, programs of this tenant and of other clouds.

terraform {
  required_version = ">= 1.9"
  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = ">= 4.20, < 5.0"
    }
    azapi = {
      source  = "azure/azapi"
      version = ">= 2.0, < 3.0"
    }
  }
}

variable "topology" {
  description = "What the program declares, from crossbus.auto.tfvars.json."
  type        = any
}

variable "subscription_id" {
  description = "The Azure subscription."
  type        = string
  default     = "00000000-0000-0000-0000-000000000000"
}

variable "resource_group_name" {
  description = "A resource group that is there."
  type        = string
  default     = "shop"
}

variable "storage_account_id" {
  description = "A storage account that is there, with a container `dropped-events`."
  type        = string
  default     = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/shop/providers/Microsoft.Storage/storageAccounts/acmeshop"
}

variable "principals" {
  description = "The object ids of the managed identities of the programs, and of the group that operates them."
  type        = map(string)
  default = {
    shop        = "00000000-0000-0000-0000-000000000001"
    billing     = "00000000-0000-0000-0000-000000000002"
    night-watch = "00000000-0000-0000-0000-000000000003"
  }
}

variable "action_group_ids" {
  description = "Who is told of alerts."
  type        = list(string)
  default     = []
}

provider "azurerm" {
  subscription_id = var.subscription_id
  features {}
}

provider "azapi" {
  subscription_id = var.subscription_id
}

module "events" {
  source              = "../../../modules/eventgrid"
  topology            = var.topology
  resource_group_name = var.resource_group_name
  location            = "westeurope"
  namespace           = { name = "acme-shop", capacity = 2, inbound_ip_ranges = ["192.0.2.0/24"] }
  profile_name        = "production"
  backstop            = { storage_account_id = var.storage_account_id, container = "dropped-events" }
  tags                = { team = "shop" }
  alarms              = { action_group_ids = var.action_group_ids }

  access = {
    shop        = { publish = ["orders", "payments"], principal_ids = [var.principals["shop"]] }
    billing     = { consume = ["orders/billing"], principal_ids = [var.principals["billing"]] }
    night-watch = { operate = keys(var.topology.subscriptions), principal_ids = [var.principals["night-watch"]] }
    # A program on Google Cloud: the numeric id of its service account.
    reporting = {
      consume = ["payments/books"]
      oidc    = { issuer = "https://accounts.google.com", subject = "112233445566778899000" }
    }
  }
}

output "crossbus_toml" {
  description = "The profile for crossbus.toml."
  value       = module.events.crossbus_toml
}

output "client_ids" {
  description = "The managed identities that identities of other clouds take on."
  value       = module.events.client_ids
}
