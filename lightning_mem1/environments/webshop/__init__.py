"""A WebShop in pure Python: catalogue, search, goals, reward and pages."""

from lightning_mem1.environments.webshop.catalogue.catalogue import Product, products_from
from lightning_mem1.environments.webshop.catalogue.files import load_products
from lightning_mem1.environments.webshop.env import WebShopEnv
from lightning_mem1.environments.webshop.goals.goals import Goal
from lightning_mem1.environments.webshop.goals.reward import Reward, score
from lightning_mem1.environments.webshop.shop import Shop

__all__ = ["Goal", "Product", "Reward", "Shop", "WebShopEnv", "load_products", "products_from", "score"]
