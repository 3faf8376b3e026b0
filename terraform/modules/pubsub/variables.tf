variable "project" {
  description = "The id of the project."
  type        = string
  validation {
    condition     = can(regex("^([a-z0-9.-]+:)?[a-z][a-z0-9-]{2,29}$", var.project))
    error_message = "project '${var.project}' is no id of a Google Cloud project, such as my-project"
  }
}

variable "project_number" {
  description = "The number of the project, which names Pub/Sub's service agent; null to look it up, for which the Resource Manager API has to be switched on."
  type        = string
  default     = null
}

variable "profile_name" {
  description = "What the profile in the output `crossbus_toml` is called. Default: `pubsub`. Where the topology was exported for a profile of this cloud, name that one."
  type        = string
  default     = null
}

variable "profile_is_there" {
  description = "True if crossbus.toml has that profile, with its adapter and names: the output then has only what terraform knows, and is included beside it. Default: whether the topology was exported for it."
  type        = bool
  default     = null
}

variable "profile_parameters" {
  description = "More parameters of that profile, such as `endpoint` or `impersonate`."
  type        = map(string)
  default     = {}
}

variable "labels" {
  description = "Labels of everything that can have them."
  type        = map(string)
  default     = {}
  validation {
    condition     = alltrue([for name in keys(var.labels) : !startswith(name, "crossbus")])
    error_message = "labels: those that begin with crossbus say what crossbus itself made, and prune; choose other names"
  }
}

variable "kms_key_name" {
  description = "The Cloud KMS key with which topics keep events; null for Google's own. Pub/Sub's service agent must have roles/cloudkms.cryptoKeyEncrypterDecrypter on it."
  type        = string
  default     = null
}

variable "allowed_regions" {
  description = "The regions in which topics may keep events; null for what the organisation allows."
  type        = list(string)
  default     = null
}

variable "topic_retention_seconds" {
  description = "For how long topics keep events, for replays of subscriptions that do not keep what was acknowledged; null for what the topology says."
  type        = number
  default     = null
  validation {
    condition     = try(var.topic_retention_seconds >= 600 && var.topic_retention_seconds <= 2678400, true)
    error_message = "topic_retention_seconds: 600 to 2678400 s (31 days)"
  }
}

variable "access" {
  description = "By name, who may publish to which topics, and consume or operate (look at, redrive and purge dead letters) which subscriptions, and look at all of it when a program starts (`inspect`): members (`serviceAccount:...`), roles of an AWS account, or identities of another cloud by OpenID Connect, both without keys. A topic of another project needs the right to change its policy."
  type = map(object({
    publish = optional(list(string), [])
    consume = optional(list(string), [])
    operate = optional(list(string), [])
    inspect = optional(bool, true)
    members = optional(list(string), [])
    aws = optional(object({
      account_id = string
      roles      = list(string)
    }))
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
    condition     = alltrue([for one in var.access : length(one.members) > 0 || one.aws != null || one.oidc != null])
    error_message = "access: each entry needs somebody who is granted it: members, aws or oidc"
  }
  validation {
    condition     = alltrue([for one in var.access : !contains(one.members, "allUsers") && !contains(one.members, "allAuthenticatedUsers")])
    error_message = "access: allUsers and allAuthenticatedUsers would open topics to everybody"
  }
  validation {
    condition     = alltrue([for one in var.access : one.oidc == null ? true : startswith(one.oidc.issuer, "https://") && length(one.oidc.audiences) > 0 && length(one.oidc.subjects) > 0])
    error_message = "access: oidc needs an issuer that begins with https://, and audiences and subjects: without them anybody with an account there would be let in"
  }
  validation {
    condition     = alltrue([for name, one in var.access : (one.aws == null && one.oidc == null) || can(regex("^[a-z][a-z0-9-]{3,31}$", name))])
    error_message = "access: an entry with aws or oidc becomes a provider of the workload identity pool, whose name has 4 to 32 of a-z, 0-9 and hyphens, beginning with a letter"
  }
}

variable "pool_id" {
  description = "The id of the workload identity pool that is made if `access` has identities of another cloud. It cannot be used again for 30 days after it was deleted."
  type        = string
  default     = "crossbus"
}

variable "alarms" {
  description = "Alert policies for each subscription: more dead letters than `dead_letters`, and an oldest waiting event older than `oldest_seconds`; `notification_channels` are told. Null for no alert policies."
  type = object({
    dead_letters          = optional(number, 0)
    oldest_seconds        = optional(number, 900)
    notification_channels = optional(list(string), [])
  })
  default = {}
}
