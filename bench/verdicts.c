#include "verdicts.h"

#include <stdio.h>

static const double claimed_store_rate = 8.5 * 1.073741824; /* 8.5 GiB/s, in GB/s */
static const double near = 1.15;                            /* times the claimed figure still counts as it */
static const double slow = 0.8;                             /* of one large copy */
static const double claimed_page_cost = 0.03;
static const uint64_t claimed_piece = 28 << 10;

bench_verdict bench_verdict_stores(const double *rates, size_t count)
{
    bench_verdict verdict = {.known = count > 0};
    double most = 0;

    for (size_t i = 0; i < count; i++)
        most = rates[i] > most ? rates[i] : most;
    verdict.holds = verdict.known && most <= near * claimed_store_rate;
    if (verdict.known)
        snprintf(verdict.text, sizeof verdict.text,
                 "%s: stores to host memory are capped near 8.5 GiB/s; measured at most %.1f GiB/s (%.1f GB/s)",
                 verdict.holds ? "true" : "false", most / 1.073741824, most);
    return verdict;
}

bench_verdict bench_verdict_batches(const bench_point *points, size_t count)
{
    const bench_point *below = NULL, *fast = NULL;

    for (size_t i = 0; i < count; i++) {
        if (points[i].piece_bytes < claimed_piece)
            below = &points[i];
        if (fast == NULL && points[i].rate >= slow * points[i].limit)
            fast = &points[i];
    }
    bench_verdict verdict = {.known = below != NULL};
    if (!verdict.known)
        return verdict;
    verdict.holds = below->rate < slow * below->limit;
    int length = snprintf(verdict.text, sizeof verdict.text,
                          "%s: batched copies from the host are slow below 28 KiB a piece; %.0f KiB reach %.0f%% of "
                          "one large copy, ",
                          verdict.holds ? "true" : "false", (double)below->piece_bytes / 1024,
                          100 * below->rate / below->limit);
    if (fast != NULL)
        snprintf(verdict.text + length, sizeof verdict.text - (size_t)length, "80%% begin at %.0f KiB",
                 (double)fast->piece_bytes / 1024);
    else
        snprintf(verdict.text + length, sizeof verdict.text - (size_t)length, "no size reaches 80%%");
    return verdict;
}

bench_verdict bench_verdict_pages(const double *costs, const double *spreads, size_t count)
{
    bench_verdict verdict = {.known = count > 0};
    size_t worst = 0;

    for (size_t i = 1; i < count; i++)
        worst = costs[i] > costs[worst] ? i : worst;
    if (!verdict.known)
        return verdict;
    verdict.holds = costs[worst] <= claimed_page_cost;
    double apart = costs[worst] - claimed_page_cost;
    bool unsure = (apart < 0 ? -apart : apart) < spreads[worst];
    snprintf(verdict.text, sizeof verdict.text,
             "%s: pages of all layers cost attention at most 3%%; measured at most %.1f%%, give or take %.1f%s",
             verdict.holds ? "true" : "false", 100 * costs[worst], 100 * spreads[worst],
             unsure ? " (too near to 3% to be sure)" : "");
    return verdict;
}
