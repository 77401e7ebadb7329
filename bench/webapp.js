// bench/webapp.py for Node: what PM2's cluster mode can run. Serves on PORT.
"use strict";

const http = require("node:http");

let stopping = false;

const server = http.createServer((request, response) => {
  const who = `${process.pid} ${process.env.VERSION || "-"}\n`;
  const body = request.url === "/ready" ? "ready\n" : who;
  const headers = { "Content-Type": "text/plain", "Content-Length": Buffer.byteLength(body) };
  if (stopping) headers["Connection"] = "close";
  response.writeHead(200, headers);
  response.end(body);
});

function stop() {
  stopping = true;
  server.close(() => process.exit(0)); // idle connections are closed, requests are finished
}

process.on("SIGINT", stop); // PM2's stop signal
process.on("SIGTERM", stop);
server.listen({ host: "127.0.0.1", port: Number(process.env.PORT), backlog: 4096 }, () => {
  if (process.send) process.send("ready"); // wait_ready
});
