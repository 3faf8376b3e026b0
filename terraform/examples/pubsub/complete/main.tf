# Everything that the module has: a key of one's own, a region that events stay in, alert policies, programs of this
# project, of another one and of other clouds.

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

variable "partner_project" {
  description = "The project of a partner whose program publishes orders."
  type        = string
  default     = "their-project"
}

variable "kms_key_name" {
  description = "The Cloud KMS key; Pub/Sub's service agent has roles/cloudkms.cryptoKeyEncrypterDecrypter on it."
  type        = string
  default     = "projects/my-project/locations/europe-west1/keyRings/crossbus/cryptoKeys/events"
}

variable "notification_channels" {
  description = "Who is told of alerts."
  type        = list(string)
  default     = []
}

provider "google" {
  project = var.project
}

module "events" {
  source                  = "../../../modules/pubsub"
  topology                = var.topology
  project                 = var.project
  profile_name            = "production"
  kms_key_name            = var.kms_key_name
  allowed_regions         = ["europe-west1"]
  topic_retention_seconds = 86400
  labels                  = { team = "shop" }

  alarms = {
    oldest_seconds        = 600
    notification_channels = var.notification_channels
  }

  access = {
    shop        = { publish = ["orders", "payments"], members = ["serviceAccount:shop@${var.project}.iam.gserviceaccount.com"] }
    billing     = { consume = ["orders/billing"], members = ["serviceAccount:billing@${var.project}.iam.gserviceaccount.com"] }
    night-watch = { operate = keys(var.topology.subscriptions), members = ["group:operations@example.com"] }
    partner     = { publish = ["orders"], inspect = false, members = ["serviceAccount:shop@${var.partner_project}.iam.gserviceaccount.com"] }
    # Programs on AWS, by the role that they run with, and on Azure, by the object id of their managed identity.
    from-aws   = { consume = ["payments/books"], aws = { account_id = "123456789012", roles = ["reporting"] } }
    from-azure = { publish = ["payments"], oidc = { issuer = "https://sts.windows.net/00000000-0000-0000-0000-000000000001/", audiences = ["api://crossbus"], subjects = ["00000000-0000-0000-0000-000000000002"] } }
  }
}

output "crossbus_toml" {
  description = "The profile for crossbus.toml."
  value       = module.events.crossbus_toml
}

output "identity_providers" {
  description = "For the credential configurations of programs of other clouds."
  value       = module.events.identity_providers
}
