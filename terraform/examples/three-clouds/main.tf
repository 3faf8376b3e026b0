# One topology on all three clouds: the same program runs on each, and only its profile changes.

terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7.0"
    }
    google = {
      source  = "hashicorp/google"
      version = ">= 6.2, < 8.0"
    }
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

variable "region" {
  description = "The AWS region."
  type        = string
  default     = "eu-west-1"
}

variable "project" {
  description = "The id of the Google Cloud project."
  type        = string
  default     = "my-project"
}

variable "subscription_id" {
  description = "The Azure subscription."
  type        = string
  default     = "00000000-0000-0000-0000-000000000000"
}

variable "max_message_bytes" {
  description = "The largest message that an SQS queue takes; 262144 with releases of the AWS provider before August 2025."
  type        = number
  default     = 1048576
}

provider "aws" {
  region = var.region
}

provider "google" {
  project = var.project
}

provider "azurerm" {
  subscription_id = var.subscription_id
  features {}
}

provider "azapi" {
  subscription_id = var.subscription_id
}

module "aws" {
  source            = "../../modules/eventbridge"
  topology          = var.topology
  profile_name      = "aws"
  max_message_bytes = var.max_message_bytes
}

module "google" {
  source       = "../../modules/pubsub"
  topology     = var.topology
  profile_name = "google"
  project      = var.project
}

module "azure" {
  source              = "../../modules/eventgrid"
  topology            = var.topology
  profile_name        = "azure"
  resource_group_name = "shop"
  location            = "westeurope"
  namespace           = { name = "acme-shop" }
}

# terraform output -raw crossbus_toml > crossbus.clouds.toml
output "crossbus_toml" {
  description = "The three profiles for crossbus.toml."
  value       = join("\n", [module.aws.crossbus_toml, module.google.crossbus_toml, module.azure.crossbus_toml])
}
