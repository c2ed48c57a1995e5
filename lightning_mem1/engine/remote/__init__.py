"""Generation by servers: the client, its pool of servers, and the adapters they are sent."""
