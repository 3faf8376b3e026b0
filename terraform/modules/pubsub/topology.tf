# The same file in all three modules. What differs between providers stands in limits.tf.

variable "topology" {
  description = "What a program declares, as `crossbus topology export` writes it: topics and subscriptions with their names and filters at each provider."
  nullable    = false
  type = object({
    version = number
    profile = optional(string, "")
    names   = optional(string, "{name}")
    topics = optional(map(object({
      external = optional(bool, false)
      refused  = optional(map(string), {})
      eventbridge = optional(object({
        bus          = string
        shared       = optional(bool, false)
        archive_days = optional(number)
      }))
      pubsub = optional(object({
        topic             = string
        retention_seconds = optional(number)
      }))
      eventgrid = optional(object({
        topic = string
      }))
    })), {})
    subscriptions = optional(map(object({
      topic             = string
      name              = string
      ordered           = optional(bool, false)
      lease_seconds     = optional(number, 60)
      retention_seconds = optional(number)
      attempts          = optional(number) # none: as many as it takes
      backstop          = optional(number)
      filter            = optional(string)
      retry = optional(object({
        first_delay_seconds = optional(number, 1)
        factor              = optional(number, 2)
        max_delay_seconds   = optional(number, 300)
      }), {})
      refused = optional(map(string), {})
      eventbridge = optional(object({
        rule                          = string
        queue                         = string
        dead_letter_queue             = string
        pattern                       = string
        exact                         = optional(bool, true)
        retention_seconds             = optional(number)
        backstop                      = optional(number)
        kms_key                       = optional(string)
        dead_letter_retention_seconds = optional(number)
      }))
      pubsub = optional(object({
        subscription                  = string
        filter                        = optional(string, "")
        dead_letter_topic             = string
        dead_letter_subscription      = string
        exact                         = optional(bool, true)
        retention_seconds             = optional(number)
        backstop                      = optional(number)
        retain_acked                  = optional(bool, true)
        exactly_once                  = optional(bool, false)
        dead_letter_retention_seconds = optional(number)
        older_generations             = optional(map(string), {})
      }))
      eventgrid = optional(object({
        subscription             = string
        dead_letter_topic        = string
        dead_letter_subscription = optional(string, "dead-letters")
        native                   = optional(string)
        included_event_types     = optional(list(string), [])
        filters = optional(list(object({
          operator_type = string
          key           = string
          values        = optional(list(string))
        })), [])
        exact             = optional(bool, true)
        retention_seconds = optional(number)
        backstop          = optional(number)
      }))
    })), {})
  })

  validation {
    condition     = var.topology.version == 1
    error_message = "the topology document has version ${var.topology.version}, and this module reads version 1: take the modules of the crossbus release that wrote it"
  }

  # What the program said when the document was written.
  validation {
    condition     = alltrue([for one in concat(values(var.topology.topics), values(var.topology.subscriptions)) : !contains(keys(one.refused), local.adapter)])
    error_message = join("\n", [for one in concat(values(var.topology.topics), values(var.topology.subscriptions)) : one.refused[local.adapter] if contains(keys(one.refused), local.adapter)])
  }

  # And what it would say of a document that was written, or changed, by hand.
  validation {
    condition = alltrue([
      for name in concat(keys(var.topology.topics), [for one in var.topology.subscriptions : one.name]) :
      can(regex("^[a-z][a-z0-9-]{2,39}$", name)) && !strcontains(name, "--") && !endswith(name, "-")
    ])
    error_message = join("\n", [
      for one in concat([for name in keys(var.topology.topics) : ["topic", name]], [for one in var.topology.subscriptions : ["subscription", one.name]]) :
      "${one[0]} name '${one[1]}' is not allowed: 3 to 40 characters, a-z, 0-9 and single hyphens, beginning with a letter and not ending with a hyphen"
      if !can(regex("^[a-z][a-z0-9-]{2,39}$", one[1])) || strcontains(one[1], "--") || endswith(one[1], "-")
    ])
  }
  validation {
    condition     = alltrue([for key, one in var.topology.subscriptions : key == "${one.topic}/${one.name}" && contains(keys(var.topology.topics), one.topic)])
    error_message = join("\n", [for key, one in var.topology.subscriptions : "subscription ${key}: its key must be TOPIC/NAME, and its topic '${one.topic}' one of the topics" if key != "${one.topic}/${one.name}" || !contains(keys(var.topology.topics), one.topic)])
  }
  validation {
    condition = alltrue(concat(
      [for one in var.topology.topics : one[local.adapter] != null || contains(keys(one.refused), local.adapter)],
      [for one in var.topology.subscriptions : one[local.adapter] != null || contains(keys(one.refused), local.adapter)],
    ))
    error_message = join("\n", concat(
      [for key, one in var.topology.topics : "topic '${key}' has no names at ${local.adapter}: write the document anew with crossbus topology export" if one[local.adapter] == null],
      [for key, one in var.topology.subscriptions : "subscription ${key} has no names at ${local.adapter}: write the document anew with crossbus topology export" if one[local.adapter] == null],
    ))
  }
  validation {
    condition     = local.limits.ordering || alltrue([for key, one in var.topology.subscriptions : !one.ordered || one[local.adapter] == null])
    error_message = join("\n", [for key, one in var.topology.subscriptions : "subscription ${key} is ordered: ${local.adapter} cannot do that; it has no ordering (events with one partitionkey are delivered in order)${local.limits.ordering_way_out}" if one.ordered && one[local.adapter] != null])
  }
  validation {
    condition     = alltrue([for one in var.topology.subscriptions : one[local.adapter] == null || (one.lease_seconds >= local.limits.lease[0] && one.lease_seconds <= local.limits.lease[1])])
    error_message = join("\n", [for key, one in var.topology.subscriptions : format("subscription %s: a lease of %.6g s; %s allows %.6g to %.6g s", key, one.lease_seconds, local.adapter, local.limits.lease...) if one[local.adapter] != null && (one.lease_seconds < local.limits.lease[0] || one.lease_seconds > local.limits.lease[1])])
  }
  validation {
    condition     = alltrue([for one in var.topology.subscriptions : try(coalesce(one[local.adapter].backstop, one.backstop), local.limits.backstop[0]) >= local.limits.backstop[0] && try(coalesce(one[local.adapter].backstop, one.backstop), local.limits.backstop[0]) <= local.limits.backstop[1]])
    error_message = join("\n", [for key, one in var.topology.subscriptions : format("subscription %s: a backstop of %d receives; %s allows %d to %d", key, coalesce(one[local.adapter].backstop, one.backstop), local.adapter, local.limits.backstop...) if try(coalesce(one[local.adapter].backstop, one.backstop) < local.limits.backstop[0] || coalesce(one[local.adapter].backstop, one.backstop) > local.limits.backstop[1], false)])
  }
  validation {
    condition = !local.limits.attempts_within_backstop || alltrue([
      for one in var.topology.subscriptions : one[local.adapter] == null || try(one.attempts <= coalesce(one[local.adapter].backstop, one.backstop, local.limits.default_backstop), false)
    ])
    error_message = join("\n", [
      for key, one in var.topology.subscriptions : format(
        "subscription %s has a limit of %s attempts; eventgrid drops an event after %d receives (maxDeliveryCount), which would lose it: use RetryPolicy(attempts=%d) or fewer",
        key, one.attempts == null ? "unlimited" : tostring(one.attempts),
        coalesce(one[local.adapter].backstop, one.backstop, local.limits.default_backstop),
        coalesce(one[local.adapter].backstop, one.backstop, local.limits.default_backstop),
      ) if one[local.adapter] != null && !try(one.attempts <= coalesce(one[local.adapter].backstop, one.backstop, local.limits.default_backstop), false)
    ])
  }
  validation {
    condition     = alltrue([for one in var.topology.subscriptions : one[local.adapter] == null || try(coalesce(one[local.adapter].retention_seconds, one.retention_seconds) >= local.limits.retention[0] && coalesce(one[local.adapter].retention_seconds, one.retention_seconds) <= local.limits.retention[1], true)])
    error_message = join("\n", [for key, one in var.topology.subscriptions : format("subscription %s: a retention of %.6g s; %s", key, coalesce(one[local.adapter].retention_seconds, one.retention_seconds), local.limits.retention_words) if one[local.adapter] != null && !try(coalesce(one[local.adapter].retention_seconds, one.retention_seconds) >= local.limits.retention[0] && coalesce(one[local.adapter].retention_seconds, one.retention_seconds) <= local.limits.retention[1], true)])
  }
  validation {
    condition     = !local.limits.whole_seconds || alltrue([for one in var.topology.subscriptions : one.lease_seconds == floor(one.lease_seconds) && try(one.retention_seconds == floor(one.retention_seconds), true)])
    error_message = join("\n", [for key, one in var.topology.subscriptions : format("subscription %s: a %s of %.6g s; %s takes whole seconds", key, one.lease_seconds == floor(one.lease_seconds) ? "retention" : "lease", one.lease_seconds == floor(one.lease_seconds) ? one.retention_seconds : one.lease_seconds, local.adapter) if !(one.lease_seconds == floor(one.lease_seconds) && try(one.retention_seconds == floor(one.retention_seconds), true))])
  }
  validation {
    condition = alltrue([
      for one in concat(
        flatten([for one in var.topology.topics : [for attribute, longest in local.limits.topic_names : { name = one[local.adapter][attribute], longest = longest }] if one[local.adapter] != null && !one.external]),
        flatten([for one in var.topology.subscriptions : [for attribute, longest in local.limits.subscription_names : { name = one[local.adapter][attribute], longest = longest }] if one[local.adapter] != null]),
      ) : can(regex("^(${local.limits.name_regex})$", one.name)) && length(one.name) <= one.longest
    ])
    error_message = join("\n", distinct([
      for one in concat(
        flatten([for key, one in var.topology.topics : [for attribute, longest in local.limits.topic_names : { what = "topic '${key}'", name = one[local.adapter][attribute], longest = longest }] if one[local.adapter] != null && !one.external]),
        flatten([for key, one in var.topology.subscriptions : [for attribute, longest in local.limits.subscription_names : { what = "subscription ${key}", name = one[local.adapter][attribute], longest = longest }] if one[local.adapter] != null]),
      ) :
      length(one.name) > one.longest ?
      "${one.what} would be called '${one.name}', of ${length(one.name)} characters, and ${local.adapter} takes ${one.longest}: write the document anew with crossbus topology export, which cuts names" :
      "${one.what} would be called '${one.name}', which ${local.adapter} does not allow (it must match ${local.limits.name_rule}): change the profile's names or variables, or set its resource"
      if !can(regex("^(${local.limits.name_regex})$", one.name)) || length(one.name) > one.longest
    ]))
  }
  validation {
    condition     = alltrue([for one in var.topology.subscriptions : try(length(one[local.adapter][local.limits.filter]), 0) <= local.limits.filter_size])
    error_message = join("\n", [for key, one in var.topology.subscriptions : "subscription ${key}: its filter has ${length(one[local.adapter][local.limits.filter])} characters, and ${local.adapter} takes ${local.limits.filter_size}: write the document anew with crossbus topology export, which shortens it" if try(length(one[local.adapter][local.limits.filter]), 0) > local.limits.filter_size])
  }
  # Pub/Sub cannot change a filter, so that a name ends in the hash of its own.
  validation {
    condition = local.adapter != "pubsub" || alltrue([
      for one in var.topology.subscriptions : try(one.pubsub.filter == "" || !can(regex("--[0-9a-f]{8}$", one.pubsub.subscription)) || endswith(one.pubsub.subscription, "--${substr(sha256(one.pubsub.filter), 0, 8)}"), true)
    ])
    error_message = join("\n", [
      for key, one in var.topology.subscriptions : "subscription ${key}: its filter was changed without its name, so that Pub/Sub's subscription would be replaced, with all that waits in it: write the document anew with crossbus topology export, which keeps the older one"
      if try(one.pubsub.filter != "" && can(regex("--[0-9a-f]{8}$", one.pubsub.subscription)) && !endswith(one.pubsub.subscription, "--${substr(sha256(one.pubsub.filter), 0, 8)}"), false)
    ])
  }
}
