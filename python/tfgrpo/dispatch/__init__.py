"""One paid effect: admitted, durable before it is sent and before it is used, retried outside its slot."""
