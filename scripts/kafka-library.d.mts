export const KAFKA_VERSION: string
/** Folder of the jars; undefined when Java or Maven is not on this machine. */
export function kafkaLibrary (): string | undefined
