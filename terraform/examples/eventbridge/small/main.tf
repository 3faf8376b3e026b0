# The least that it takes. `crossbus topology export` writes crossbus.auto.tfvars.json beside this file.

terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7.0"
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

provider "aws" {
  region = var.region
}

module "events" {
  source   = "../../../modules/eventbridge"
  topology = var.topology
}

# terraform output -raw crossbus_toml > crossbus.aws.toml
output "crossbus_toml" {
  description = "The profile for crossbus.toml."
  value       = module.events.crossbus_toml
}
