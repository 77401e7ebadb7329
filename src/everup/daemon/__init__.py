"""The engine process: the pure engine on an asyncio loop, with its adapters."""
