# What Pub/Sub can do, as the adapter's capabilities have it; a test holds the two against each other.

locals {
  adapter = "pubsub"
  limits = {
    ordering                 = true
    ordering_way_out         = ""
    lease                    = [10, 600]
    backstop                 = [5, 100]
    default_backstop         = 100
    attempts_within_backstop = false
    retention                = [600, 2678400]
    retention_words          = "pubsub allows 600 to 2678400 s (31 days)"
    whole_seconds            = false
    name_rule                = "(?!goog)[A-Za-z][A-Za-z0-9._~+%-]{2,254}"
    name_regex               = "(projects/[^/]+/[a-z]+/)?[A-Za-z][A-Za-z0-9._~+%-]{2,254}"
    topic_names              = { topic = 400 }
    subscription_names       = { subscription = 400, dead_letter_topic = 400, dead_letter_subscription = 400 }
    filter                   = "filter"
    filter_size              = 256
  }
}
