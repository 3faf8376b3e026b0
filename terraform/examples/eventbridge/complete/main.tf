# Everything that the module has: a key of one's own, archives for replays, alarms, roles for programs of this account, of
# another account and of other clouds.

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

variable "account" {
  description = "The id of the AWS account, for the key's policy."
  type        = string
  default     = "123456789012"
}

variable "partner_account" {
  description = "The AWS account of a partner that publishes orders, and whose programs take on the role `partner`."
  type        = string
  default     = "210987654321"
}

variable "partner_external_id" {
  description = "What the partner says when it takes on its role, so that nobody can make it do so for them."
  type        = string
  default     = "acme-orders"
}

variable "max_message_bytes" {
  description = "The largest message that a queue takes; 262144 with releases of the AWS provider before August 2025."
  type        = number
  default     = 1048576
}

provider "aws" {
  region = var.region
}

resource "aws_kms_key" "events" {
  description         = "Events in queues"
  enable_key_rotation = true
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "owner"
        Effect    = "Allow"
        Principal = { AWS = "arn:aws:iam::${var.account}:root" }
        Action    = "kms:*"
        Resource  = "*"
      },
      {
        Sid       = "eventbridge"
        Effect    = "Allow"
        Principal = { Service = "events.amazonaws.com" }
        Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource  = "*"
        Condition = { StringEquals = { "aws:SourceAccount" = var.account } }
      },
    ]
  })
}

resource "aws_sns_topic" "alarms" {
  name              = "crossbus-alarms"
  kms_master_key_id = aws_kms_key.events.id
}

module "events" {
  source             = "../../../modules/eventbridge"
  topology           = var.topology
  profile_name       = "production"
  kms_key            = aws_kms_key.events.arn
  max_message_bytes  = var.max_message_bytes
  archive_days       = 14
  publisher_accounts = { orders = [var.partner_account] }
  tags               = { team = "shop" }

  alarms = {
    oldest_seconds = 600
    actions        = [aws_sns_topic.alarms.arn]
  }

  access = {
    shop = {
      publish  = ["orders", "payments"]
      services = ["ecs-tasks.amazonaws.com"]
    }
    billing = {
      consume  = ["orders/billing"]
      services = ["ecs-tasks.amazonaws.com"]
    }
    night-watch = {
      operate    = keys(var.topology.subscriptions)
      principals = ["arn:aws:iam::${var.account}:root"]
    }
    partner = {
      publish     = ["orders"]
      principals  = ["arn:aws:iam::${var.partner_account}:root"]
      external_id = var.partner_external_id
    }
    # A program on Google Cloud: the numeric id of its service account.
    reporting = {
      consume = ["payments/books"]
      oidc = {
        issuer    = "https://accounts.google.com"
        audiences = ["crossbus"]
        subjects  = ["112233445566778899000"]
      }
    }
  }
}

output "crossbus_toml" {
  description = "The profile for crossbus.toml."
  value       = module.events.crossbus_toml
}

output "role_arns" {
  description = "The roles for programs."
  value       = module.events.role_arns
}
