# What EventBridge with SQS can do, as the adapter's capabilities have it; a test holds the two against each other.

locals {
  adapter = "eventbridge"
  limits = {
    ordering                 = false
    ordering_way_out         = ": order by what the events say (a number, a version of the record) when you handle them, publish such a topic through a profile that has ordering (pubsub, local, or eventbridge with api=v2, an experiment), or send it to a FIFO queue without a bus"
    lease                    = [1, 43200]
    backstop                 = [1, 1000]
    default_backstop         = 100
    attempts_within_backstop = false
    retention                = [60, 1209600]
    retention_words          = "SQS keeps messages for 60 to 1209600 s (14 days)"
    whole_seconds            = false
    name_rule                = "[A-Za-z0-9_-]+"
    name_regex               = "[A-Za-z0-9_-]+"
    topic_names              = { bus = 80 }
    subscription_names       = { rule = 64, queue = 80, dead_letter_queue = 80 }
    filter                   = "pattern"
    filter_size              = 2048
  }
}
