# The least that it takes. `crossbus topology export` writes crossbus.auto.tfvars.json beside this file.

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
  namespace           = { name = "acme-shop" }
}

# terraform output -raw crossbus_toml > crossbus.azure.toml
output "crossbus_toml" {
  description = "The profile for crossbus.toml."
  value       = module.events.crossbus_toml
}
