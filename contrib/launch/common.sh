# What the launchers share; sourced by them. A launcher sets the defaults of its flags first.
# shellcheck shell=bash

die() {
  printf '%s: %s\n' "$(basename "$0")" "$1" >&2
  exit 2
}

# quoted ARG...: the arguments as one shell line that gives them again.
quoted() {
  local out
  printf -v out '%q ' "$@"
  printf '%s' "${out% }"
}

# run ARG...: a command, or with --dry-run the line that would run it.
run() {
  if [ "$DRY_RUN" = yes ]; then
    printf '%s\n' "$(quoted "$@")"
  else
    "$@"
  fi
}

# need NAME VALUE...: refuses flags without a value, and names that a cloud would refuse.
need() {
  while [ $# -gt 0 ]; do
    [ -n "$2" ] || die "--$1 is missing. See --help"
    shift 2
  done
}

# usage: the comment at the head of a launcher.
usage() {
  sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"
}
