# When a generation was made, in seconds since 1970, which terraform has no function for. Consumers read a generation and
# its predecessors, and drop of a predecessor what was published since: the successor has it too. The label is set when a
# subscription is made, a quarter of an hour late: what is published until the apply is over comes twice rather than never.

locals {
  clock = timestamp()
  year  = tonumber(formatdate("YYYY", local.clock)) - (tonumber(formatdate("M", local.clock)) <= 2 ? 1 : 0)
  month = (tonumber(formatdate("M", local.clock)) + 9) % 12 # from March on, so that a leap day is the last of its year
  days  = 365 * local.year + floor(local.year / 4) - floor(local.year / 100) + floor(local.year / 400) + floor((153 * local.month + 2) / 5) + tonumber(formatdate("D", local.clock)) - 1 - 719468
  made  = tostring(86400 * local.days + 3600 * tonumber(formatdate("h", local.clock)) + 60 * tonumber(formatdate("m", local.clock)) + tonumber(formatdate("s", local.clock)) + 900)
}
