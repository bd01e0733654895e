"""The marketplace: order book, matching engine, chain index, and the API that shows them."""
