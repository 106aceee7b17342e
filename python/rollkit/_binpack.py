def plan_bins(
    lengths,
    capacity,
    *,
    algorithm="first_fit_decreasing",
    align=1,
    max_segments=None,
    oversize="raise",
):
    import numpy as np

    bins = np.zeros(len(lengths), np.int64)
    rem = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        l = -(-int(lengths[i]) // align) * align
        for b, r in enumerate(rem):
            if r >= l:
                break
        else:
            b = len(rem)
            rem.append(capacity)
        rem[b] -= l
        bins[i] = b
    return bins
