// Joins a TinyChat server without TLS and logs what arrives. Paste it into the console of an empty tab.
const socket = new WebSocket("ws://localhost:8765");
socket.onopen = () => socket.send(JSON.stringify({ type: "join", username: "Bob" }));
socket.onmessage = (event) => console.log(JSON.parse(event.data));
socket.onclose = (event) => console.log("closed", event.code, event.reason);
