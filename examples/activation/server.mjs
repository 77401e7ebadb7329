// Socket activation in Node: `node server.mjs`.
import { createServer } from "node:http";

const FIRST_FD = 3;

const server = createServer((request, response) => {
  response.setHeader("Content-Type", "text/plain");
  response.end(`node ${process.pid}\n`);
});

if (process.env.LISTEN_PID === String(process.pid)) {
  // listen() sets the backlog anew on the socket that was passed, to 511 by default. With a
  // descriptor Node takes it from the second argument and ignores the option.
  server.listen({ fd: FIRST_FD }, 4096);
} else {
  server.listen(8080, "127.0.0.1");
}

// Without a handler SIGTERM ends Node at once and cuts the answers that are under way.
process.on("SIGTERM", () => {
  server.close(); // no new connections; ends the process when the last answer is out
  server.closeIdleConnections();
});
