# What an Event Grid namespace can do, as the adapter's capabilities have it; a test holds the two against each other.

locals {
  adapter = "eventgrid"
  limits = {
    ordering                 = false
    ordering_way_out         = ""
    lease                    = [60, 300]
    backstop                 = [1, 10]
    default_backstop         = 10
    attempts_within_backstop = true
    retention                = [60, 604800]
    retention_words          = "eventgrid allows 60 to 604800 s (7 days)"
    whole_seconds            = true
    name_rule                = "[A-Za-z0-9-]{3,50}"
    name_regex               = "[A-Za-z0-9-]{3,50}"
    topic_names              = { topic = 50 }
    subscription_names       = { subscription = 50, dead_letter_topic = 50, dead_letter_subscription = 50 }
    filter                   = ""
    filter_size              = 0
  }
}
