variable "profile_name" {
  description = "What the profile in the output `crossbus_toml` is called. Default: `eventbridge`. Where the topology was exported for a profile of this cloud, name that one."
  type        = string
  default     = null
}

variable "profile_is_there" {
  description = "True if crossbus.toml has that profile, with its adapter and names: the output then has only what terraform knows, and is included beside it. Default: whether the topology was exported for it."
  type        = bool
  default     = null
}

variable "profile_parameters" {
  description = "More parameters of that profile, such as `role_arn` and `external_id` of a role to take on."
  type        = map(string)
  default     = {}
}

variable "tags" {
  description = "Tags of everything that can have them."
  type        = map(string)
  default     = {}
}

variable "kms_key" {
  description = "The KMS key (its ARN, or an alias other than alias/aws/sqs) with which queues are encrypted; null for the key that SQS manages. Its policy must allow events.amazonaws.com kms:GenerateDataKey and kms:Decrypt. A key that the topology names for a subscription counts more."
  type        = string
  default     = null
}

variable "bus_kms_key" {
  description = "The KMS key with which the buses keep events; null for the key that AWS owns."
  type        = string
  default     = null
}

variable "max_message_bytes" {
  description = "The largest message that a queue takes: EventBridge drops a larger one in silence. Releases of the AWS provider before August 2025 (5.100 among them) know at most 262144; then set it to that, and crossbus warns."
  type        = number
  default     = 1048576
  validation {
    condition     = var.max_message_bytes >= 262144 && var.max_message_bytes <= 1048576
    error_message = "max_message_bytes is ${var.max_message_bytes}: 262144 to 1048576"
  }
}

variable "archive_days" {
  description = "For how many days the archives of the buses keep events for replays; 0 for ever, null for what the topology says, which is no archive unless its profile has `archive`."
  type        = number
  default     = null
}

variable "restrict_dlq_sources" {
  description = "Whether SQS moves messages into a dead letter from its own queue only. False is for stand-ins of AWS that do not know this setting."
  type        = bool
  default     = true
}

variable "rules_per_bus" {
  description = "How many rules AWS allows on one bus: 300, in some regions 100, unless it has raised your quota. More are a warning."
  type        = number
  default     = 300
}

variable "publisher_accounts" {
  description = "By topic, the AWS accounts that may publish to its bus. AWS wants it here, and `events:PutEvents` in the policy of whoever publishes there."
  type        = map(list(string))
  default     = {}
  validation {
    condition     = alltrue([for name in keys(var.publisher_accounts) : try(!var.topology.topics[name].external, false)])
    error_message = "publisher_accounts: ${join(", ", [for name in keys(var.publisher_accounts) : name if !try(!var.topology.topics[name].external, false)])} is none of the topics that are made here (${join(", ", [for name, one in var.topology.topics : name if !one.external])})"
  }
  validation {
    condition     = alltrue([for one in flatten(values(var.publisher_accounts)) : can(regex("^[0-9]{12}$", one))])
    error_message = "publisher_accounts: an account has 12 digits, as in \"123456789012\""
  }
}

variable "access" {
  description = "By name, roles for programs: to which topics one may publish, which subscriptions it may consume or operate (look at, redrive and purge dead letters), whether it may look at all of it when it starts and with crossbus doctor (`inspect`), and who may take it on: AWS services, principals of this or another account (with an external id), or identities of another cloud by OpenID Connect, without keys."
  type = map(object({
    publish     = optional(list(string), [])
    consume     = optional(list(string), [])
    operate     = optional(list(string), [])
    inspect     = optional(bool, true)
    services    = optional(list(string), [])
    principals  = optional(list(string), [])
    external_id = optional(string)
    oidc = optional(object({
      issuer    = string
      audiences = list(string)
      subjects  = list(string)
    }))
  }))
  default  = {}
  nullable = false
  validation {
    condition = alltrue([for one in var.access : alltrue(concat(
      [for name in one.publish : contains(keys(var.topology.topics), name)],
      [for key in concat(one.consume, one.operate) : contains(keys(var.topology.subscriptions), key)],
    ))])
    error_message = "access: publish names topics (${join(", ", keys(var.topology.topics))}), consume and operate name subscriptions (${join(", ", keys(var.topology.subscriptions))})"
  }
  validation {
    condition     = alltrue([for one in var.access : length(concat(one.services, one.principals)) > 0 || one.oidc != null])
    error_message = "access: each role needs somebody who may take it on: services, principals or oidc"
  }
  validation {
    condition     = alltrue([for one in var.access : one.oidc == null ? true : startswith(one.oidc.issuer, "https://") && length(one.oidc.audiences) > 0 && length(one.oidc.subjects) > 0])
    error_message = "access: oidc needs an issuer that begins with https://, and audiences and subjects: without them anybody with an account there could take the role on"
  }
}

variable "alarms" {
  description = "CloudWatch alarms for each subscription: more dead letters than `dead_letters`, and an oldest waiting event older than `oldest_seconds`; `actions` are the ARNs of SNS topics and the like. Null for no alarms."
  type = object({
    dead_letters   = optional(number, 0)
    oldest_seconds = optional(number, 900)
    actions        = optional(list(string), [])
  })
  default = {}
}
