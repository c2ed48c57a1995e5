"""A WebShop in pure Python: catalogue, search, goals, reward and pages."""

from lightning_mem1.envs.webshop.catalogue import Product, products_from
from lightning_mem1.envs.webshop.env import WebShopEnv
from lightning_mem1.envs.webshop.files import load_products
from lightning_mem1.envs.webshop.goals import Goal
from lightning_mem1.envs.webshop.reward import Reward, score
from lightning_mem1.envs.webshop.shop import Shop

__all__ = ["Goal", "Product", "Reward", "Shop", "WebShopEnv", "load_products", "products_from", "score"]
