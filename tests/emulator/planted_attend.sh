#!/bin/sh
# planted_attend.sh sanitizer=NAME PROGRAM0 PROGRAM1 PROGRAM2: planted_attend.cpp with QK_PLANTED 0, 1 and 2. The kernels as they
# are must be right; a wait that is too short must give wrong results; under ThreadSanitizer a missing barrier must be
# reported, and nothing in the kernels as they are. Exit 0 when all is as expected.
sanitizer=$1
failures=0

# expect WHAT PROGRAM STATUS REPORTS: its exit status, and whether races are reported (some, none, any)
expect() {
    output=$(QUIRE_EMU_SEED=0 TSAN_OPTIONS="halt_on_error=0 exitcode=66" "$2" 2>&1)
    status=$?
    reports=$(printf '%s\n' "$output" | grep -c 'WARNING: ThreadSanitizer: data race')
    good=yes
    [ "$3" = any ] || [ "$status" -eq "$3" ] || good=no
    [ "$4" = some ] && [ "$reports" -eq 0 ] && good=no
    [ "$4" = none ] && [ "$reports" -gt 0 ] && good=no
    if [ $good = yes ]; then
        echo "ok      $1: exit status $status, $reports races reported"
    else
        echo "FAILED  $1: exit status $status, $reports races reported; expected $3 and $4"
        failures=$((failures + 1))
    fi
}

expect "no mistake" "$2" 0 none
if [ "$sanitizer" = sanitizer=thread ]; then
    expect "missing barrier" "$3" any some
    expect "short wait" "$4" any some
else
    expect "short wait" "$4" 3 none
fi
[ "$failures" -eq 0 ]
