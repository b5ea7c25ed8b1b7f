// Topics is at the root already; this makes it reachable at /Topics too.
const { Topics } = tables;

export { Topics };
