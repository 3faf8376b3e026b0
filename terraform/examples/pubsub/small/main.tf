# The least that it takes. `crossbus topology export` writes crossbus.auto.tfvars.json beside this file.

terraform {
  required_version = ">= 1.9"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.2, < 8.0"
    }
  }
}

variable "topology" {
  description = "What the program declares, from crossbus.auto.tfvars.json."
  type        = any
}

variable "project" {
  description = "The id of the project."
  type        = string
  default     = "my-project"
}

provider "google" {
  project = var.project
}

module "events" {
  source   = "../../../modules/pubsub"
  topology = var.topology
  project  = var.project
}

# terraform output -raw crossbus_toml > crossbus.google.toml
output "crossbus_toml" {
  description = "The profile for crossbus.toml."
  value       = module.events.crossbus_toml
}
