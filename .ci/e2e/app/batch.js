// A batch job: N calls of the upstream, then it ends.
'use strict';
const { get, leave } = require('./calls');

async function main() {
  for (let n = Number(process.argv[2]); n > 0; n--) {
    await get(process.env.UPSTREAM);
  }
  leave();
}

main();
