const MS: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/**
 * The rules with every `for:`, range and offset divided by `factor`, so that an alert that waits ten minutes can be tried in ten seconds.
 * Thresholds stay as they are, those of the kind "in an hour" too: what is counted in the shorter window is fewer.
 */
export function shortenRules (text: string, factor: number): string {
  const shorter = (duration: string): string => {
    const [, amount = '', unit = ''] = /^(\d+)(ms|[smhd])$/.exec(duration) ?? []
    return `${Math.max(1, Math.round(Number(amount) * (MS[unit] ?? NaN) / factor))}ms`
  }
  return text
    .replaceAll(/^(\s+for: )(\S+)$/gm, (_, key: string, duration: string) => key + shorter(duration))
    .replaceAll(/\[(\d+(?:ms|[smhd]))\]/g, (_, duration: string) => `[${shorter(duration)}]`)
    .replaceAll(/\boffset (\d+(?:ms|[smhd]))\b/g, (_, duration: string) => `offset ${shorter(duration)}`)
}
