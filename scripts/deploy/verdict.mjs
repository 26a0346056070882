/** Counts what holds. The last line of a check is `N passed, N failed`. */
const failures = []
let held = 0

export function check (holds, what) {
  if (holds) held++
  else failures.push(what)
}

export function same (actual, expected, what) {
  check(JSON.stringify(actual) === JSON.stringify(expected), `${what}: ${JSON.stringify(actual)}, expected ${JSON.stringify(expected)}`)
}

export function unchecked (what) {
  process.stdout.write(`UNCHECKED ${what}\n`)
}

export function finish () {
  for (const failure of failures) process.stdout.write(`FAILED ${failure}\n`)
  process.stdout.write(`${held} passed, ${failures.length} failed\n`)
  process.exitCode = failures.length === 0 && held > 0 ? 0 : 1
}
