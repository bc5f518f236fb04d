#!/bin/sh
# planted_race.sh PROGRAM: every planted race must be reported, and the right kernels must not.
# PROGRAM is planted_race.cpp built with -fsanitize=thread. Exit 0 when all is as expected.
program=$1
failures=0

# expect MISTAKE SEED COUNT: whether at least one race is reported (COUNT some) or none is (COUNT none)
expect() {
    output=$(QUIRE_EMU_SEED=$2 TSAN_OPTIONS="halt_on_error=0 exitcode=66" "$program" "$1" 2>&1)
    status=$?
    reports=$(printf '%s\n' "$output" | grep -c 'WARNING: ThreadSanitizer: data race')
    if [ "$3" = some ] && [ "$status" -eq 66 ] && [ "$reports" -gt 0 ]; then
        echo "ok      $1, seed $2: $reports reports of the planted race"
    elif [ "$3" = none ] && [ "$status" -eq 0 ] && [ "$reports" -eq 0 ]; then
        echo "ok      $1, seed $2: no report"
    else
        echo "FAILED  $1, seed $2: exit status $status, $reports reports, expected $3"
        failures=$((failures + 1))
    fi
}

for seed in 0 1 2 3; do
    expect right "$seed" none
    for mistake in barrier shuffle refill wait fence; do
        expect "$mistake" "$seed" some
    done
done
[ "$failures" -eq 0 ]
