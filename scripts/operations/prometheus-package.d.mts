/** Path of `prometheus` or `promtool`; undefined where it is not and cannot be fetched. */
export function findPrometheus (program: 'prometheus' | 'promtool'): string | undefined
