/** What no API should send, and some do. */
export const NONSENSE: readonly unknown[] = [undefined, null, 0, -1, Number.NaN, "", "x", true, [], [null], [[]], {}, { id: null }, { id: { value: {} } }, { resources: "x" }, { statuses: [null, 1, { container_status: 7 }] }];
