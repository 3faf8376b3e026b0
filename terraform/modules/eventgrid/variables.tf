variable "resource_group_name" {
  description = "The resource group in which everything is made."
  type        = string
}

variable "location" {
  description = "The Azure region, such as westeurope."
  type        = string
}

variable "namespace" {
  description = "The Event Grid namespace that is made: its name, throughput units, and who reaches it. With `public_network_access = false` it has a private endpoint of yours, or nobody reaches it; `inbound_ip_ranges` are those from which the public one is reached, none for all."
  type = object({
    name                  = string
    capacity              = optional(number, 1)
    public_network_access = optional(bool, true)
    inbound_ip_ranges     = optional(list(string), [])
  })
  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9-]{1,48}[A-Za-z0-9]$", var.namespace.name))
    error_message = "namespace: its name has 3 to 50 of A-Z, a-z, 0-9 and hyphens"
  }
  validation {
    condition     = var.namespace.capacity >= 1 && var.namespace.capacity <= 40 && floor(var.namespace.capacity) == var.namespace.capacity
    error_message = "namespace: a capacity is 1 to 40 throughput units"
  }
}

variable "namespace_id" {
  description = "The resource id of a namespace that is there, to use instead of making one; null to make it. With `backstop` it needs a system-assigned identity that may write to the container."
  type        = string
  default     = null
}

variable "profile_name" {
  description = "What the profile in the output `crossbus_toml` is called. Default: `eventgrid`. Where the topology was exported for a profile of this cloud, name that one."
  type        = string
  default     = null
}

variable "profile_is_there" {
  description = "True if crossbus.toml has that profile, with its adapter and names: the output then has only what terraform knows, and is included beside it. Default: whether the topology was exported for it."
  type        = bool
  default     = null
}

variable "profile_parameters" {
  description = "More parameters of that profile."
  type        = map(string)
  default     = {}
}

variable "tags" {
  description = "Tags of everything that can have them: topics and subscriptions of a namespace cannot."
  type        = map(string)
  default     = {}
}

variable "backstop" {
  description = "Where Event Grid writes what was received too often or grew too old: the resource id of a storage account and a blob container in it. Null, and such events are dropped."
  type = object({
    storage_account_id = string
    container          = string
  })
  default = null
}

variable "access" {
  description = "By name, who may publish to which topics, and consume or operate (look at, redrive and purge dead letters) which subscriptions, and look at all of it when a program starts (`inspect`): object ids of principals of Microsoft Entra, or an identity of another cloud by OpenID Connect, without keys, for which a managed identity is made."
  type = map(object({
    publish       = optional(list(string), [])
    consume       = optional(list(string), [])
    operate       = optional(list(string), [])
    inspect       = optional(bool, true)
    principal_ids = optional(list(string), [])
    oidc = optional(object({
      issuer   = string
      subject  = string
      audience = optional(string, "api://AzureADTokenExchange")
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
    condition     = alltrue([for one in var.access : length(one.principal_ids) > 0 || one.oidc != null])
    error_message = "access: each entry needs somebody who is granted it: principal_ids or oidc"
  }
}

variable "alarms" {
  description = "Metric alerts: new dead letters (more than `dead_letters` in `window`), and events that Event Grid dropped; `action_group_ids` are told. Null for no alerts. Event Grid has no metric of how long the oldest event has waited: crossbus itself measures that in its consumers."
  type = object({
    dead_letters     = optional(number, 0)
    window           = optional(string, "PT5M")
    action_group_ids = optional(list(string), [])
  })
  default = {}
}
