<?php

namespace App\Models;

class Tenant extends CompanyRecord
{
}
