"use strict";

const Hapi = require("@hapi/hapi");

/** A server that answers at /hello/NAME. It listens when `start` is called. */
function createServer(port = process.env.PORT || 3000) {
  const server = Hapi.server({ port, host: "0.0.0.0" });
  server.route({
    method: "GET",
    path: "/hello/{name}",
    handler: (request, h) => h.response(`Hello, ${request.params.name}!\n`).type("text/plain"),
  });
  return server;
}

async function main() {
  const server = createServer();
  for (const signal of ["SIGINT", "SIGTERM"]) {
    process.once(signal, () => server.stop({ timeout: 5000 }));
  }
  await server.start();
  console.log(`Listening on ${server.info.uri}`);
}

if (require.main === module) {
  main().catch((error) => {
    console.error(error);
    process.exitCode = 1;
  });
}

module.exports = { createServer };
